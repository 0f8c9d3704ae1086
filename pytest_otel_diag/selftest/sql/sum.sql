-- Every series of the metrics that are about one service, its level in two windows.
WITH
    toUnixTimestamp64Nano(toDateTime64(TimeUnix, 9)) AS at_ns,
    at_ns >= {then_start:Int64} AND at_ns < {then_end:Int64} AS later,
    at_ns >= {quiet_start:Int64} AND at_ns < {quiet_end:Int64} AS before
SELECT
    MetricName AS metric,
    toUInt8(any(IsMonotonic)) AS counts,
    countIf(before) AS n_before,
    countIf(later) AS n_then,
    minIf(Value, before) AS low_before,
    maxIf(Value, before) AS high_before,
    minIf(Value, later) AS low_then,
    maxIf(Value, later) AS high_then
FROM otel_metrics_sum
WHERE (ServiceName = {service:String}
    OR has(mapValues(Attributes), {service:String}) OR has(mapValues(ResourceAttributes), {service:String}))
  AND match(lower(MetricName), {family:String})
  AND (before OR later)
GROUP BY MetricName, ServiceName, Attributes, ResourceAttributes
HAVING n_before > 0 AND n_then > 0
ORDER BY metric
LIMIT 1000
