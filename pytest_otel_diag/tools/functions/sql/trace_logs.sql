SELECT
    'line' AS what,
    toUnixTimestamp64Nano(toDateTime64(Timestamp, 9)) AS at_ns,
    toString(ServiceName) AS service_name,
    toValidUTF8(Body) AS text,
    toString(SeverityText) AS kind_or_severity,
    SpanId AS span_id,
    '' AS parent_id,
    toInt64(0) AS took_ns,
    toUInt8(0) AS failed,
    '' AS message,
    mapKeys(LogAttributes) AS keys,
    mapValues(LogAttributes) AS texts,
    emptyArrayString() AS events,
    emptyArrayString() AS exceptions
FROM otel_logs
WHERE TraceId IN ({trace_id:String}, lower({trace_id:String}))
    AND Timestamp >= fromUnixTimestamp64Nano(arrayMin({window_starts:Array(Int64)}))
    AND Timestamp < fromUnixTimestamp64Nano(arrayMax({window_ends:Array(Int64)}))
