-- Cited traces that log lines name, with the services that wrote the lines.
SELECT
    toString(TraceId) AS trace_id,
    groupUniqArray(100)(toString(ServiceName)) AS services,
    groupUniqArray(500)(toString(SpanId)) AS spans
FROM otel_logs
WHERE Timestamp >= fromUnixTimestamp64Nano({start_ns:Int64}) AND Timestamp < fromUnixTimestamp64Nano({end_ns:Int64})
    AND (has({trace_ids:Array(String)}, toString(TraceId)) OR has({span_ids:Array(String)}, toString(SpanId)))
GROUP BY trace_id
LIMIT 1000
