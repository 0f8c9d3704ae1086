SELECT TraceId AS trace_id FROM otel_traces
WHERE ServiceName = {service:String}
  AND Timestamp >= fromUnixTimestamp64Nano({start_ns:Int64}) AND Timestamp < fromUnixTimestamp64Nano({end_ns:Int64})
ORDER BY ${failed} DESC, Duration DESC, TraceId
LIMIT 1 BY TraceId LIMIT 3
