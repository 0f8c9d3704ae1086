SELECT
    'span' AS what,
    toUnixTimestamp64Nano(toDateTime64(Timestamp, 9)) AS at_ns,
    toString(ServiceName) AS service_name,
    toValidUTF8(toString(SpanName)) AS text,
    ${kind} AS kind_or_severity,
    SpanId AS span_id,
    ParentSpanId AS parent_id,
    greatest(toInt64(Duration), 0) AS took_ns,
    toUInt8(${failed}) AS failed,
    toValidUTF8(StatusMessage) AS message,
    mapKeys(SpanAttributes) AS keys,
    mapValues(SpanAttributes) AS texts,
    Events.Name AS events,
    arrayMap(one -> concat(one['exception.type'], ' ', one['exception.message']), Events.Attributes) AS exceptions
FROM otel_traces
WHERE TraceId IN ({trace_id:String}, lower({trace_id:String}))
    AND Timestamp >= fromUnixTimestamp64Nano(arrayMin({window_starts:Array(Int64)}))
    AND Timestamp < fromUnixTimestamp64Nano(arrayMax({window_ends:Array(Int64)}))
