-- Bodies with masked variable parts, which Drain clusters into templates.
SELECT substring(replaceRegexpAll(Body, {mask:String}, '<*>'), 1, 400) AS masked, cityHash64(masked) AS body,
    ServiceName AS service, argMax(SeverityText, Timestamp) AS severity, count() AS n,
    countIf(SpanId = '') AS loose
FROM otel_logs
WHERE Timestamp >= fromUnixTimestamp64Nano(arrayMin({window_starts:Array(Int64)}))
  AND Timestamp < fromUnixTimestamp64Nano(arrayMax({window_ends:Array(Int64)}))
  AND transform(roundDown(toUnixTimestamp64Nano(toDateTime64(Timestamp, 9)), {bounds:Array(Int64)}), {bounds:Array(Int64)}, {slots:Array(Int32)}, -1) >= 0
GROUP BY masked, service
ORDER BY n DESC, body, service
LIMIT {keys:UInt32}
