-- The exporter's id of a trace hash.
SELECT any(TraceId) AS trace_id
FROM otel_traces
WHERE cityHash64(TraceId) = {trace:UInt64}
  AND Timestamp >= fromUnixTimestamp64Nano({start_ns:Int64})
  AND Timestamp < fromUnixTimestamp64Nano({end_ns:Int64})
