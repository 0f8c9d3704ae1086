-- The sums that are about one service: lowest and highest value in two windows, and what was added.
-- A counter that appears after the quiet window began at nothing; a restart does not end a level.
WITH
    toUnixTimestamp64Nano(toDateTime64(TimeUnix, 9)) AS at_ns,
    at_ns >= {then_start:Int64} AND at_ns < {then_end:Int64} AS later,
    at_ns >= {quiet_start:Int64} AND at_ns < {quiet_end:Int64} AS before
SELECT
    metric,
    max(counted) AS counts,
    min(low_b) AS low_before,
    max(high_b) AS high_before,
    max(high_t) AS high_then,
    sumIf(high_b - low_b, n_b > 0) AS added_before,
    sumIf(high_t - if(n_b > 0, low_t, 0), n_t > 0) AS added_then
FROM
(
    SELECT
        MetricName AS metric,
        ServiceName AS service,
        if(counted = 1, map(), Attributes) AS level_of,
        toUInt8(any(IsMonotonic)) AS counted,
        countIf(before) AS n_b,
        countIf(later) AS n_t,
        minOrNullIf(Value, before) AS low_b,
        maxOrNullIf(Value, before) AS high_b,
        minOrNullIf(Value, later) AS low_t,
        maxOrNullIf(Value, later) AS high_t
    FROM otel_metrics_sum
    WHERE (ServiceName = {service:String}
        OR has(mapValues(Attributes), {service:String}) OR has(mapValues(ResourceAttributes), {service:String}))
      AND match(lower(MetricName), {family:String})
      AND (before OR later)
    GROUP BY MetricName, ServiceName, Attributes, ResourceAttributes
)
GROUP BY metric, service, level_of
HAVING sum(n_t) > 0 AND (counts = 1 OR sum(n_b) > 0)
ORDER BY metric
LIMIT 1000
