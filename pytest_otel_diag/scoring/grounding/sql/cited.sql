-- Where cited traces and spans are: for each trace and service the first and last instant, and the cited spans.
SELECT
    toString(TraceId) AS trace_id,
    toString(ServiceName) AS service,
    toUnixTimestamp64Nano(toDateTime64(min(Timestamp), 9)) AS first_ns,
    toUnixTimestamp64Nano(toDateTime64(max(Timestamp), 9)) AS last_ns,
    groupUniqArrayIf(500)(toString(SpanId), SpanId IN {span_ids:Array(String)}) AS spans
FROM otel_traces
WHERE Timestamp >= fromUnixTimestamp64Nano({start_ns:Int64}) AND Timestamp < fromUnixTimestamp64Nano({end_ns:Int64})
    AND (TraceId IN {trace_ids:Array(String)} OR SpanId IN {span_ids:Array(String)})
GROUP BY trace_id, service
LIMIT 5000
