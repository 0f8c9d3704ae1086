-- The exporter's trace ids of trace hashes.
SELECT cityHash64(TraceId) AS trace, any(TraceId) AS trace_id
FROM otel_traces
WHERE trace IN (SELECT arrayJoin({traces:Array(UInt64)}))
    AND Timestamp >= fromUnixTimestamp64Nano({start_ns:Int64})
    AND Timestamp < fromUnixTimestamp64Nano({end_ns:Int64})
GROUP BY trace
