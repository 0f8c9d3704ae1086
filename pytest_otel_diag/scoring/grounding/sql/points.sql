-- Values of cited metrics in labelled windows, by service.
SELECT
    label,
    service,
    metric,
    avg(Value) AS mean,
    min(Value) AS least,
    max(Value) AS most,
    argMax(Value, time_ns) AS last
FROM (
    SELECT
        toString(ServiceName) AS service,
        toString(MetricName) AS metric,
        Value,
        toUnixTimestamp64Nano(toDateTime64(TimeUnix, 9)) AS time_ns
    FROM metric_table
    WHERE TimeUnix >= fromUnixTimestamp64Nano(arrayMin({window_starts:Array(Int64)}))
        AND TimeUnix < fromUnixTimestamp64Nano(arrayMax({window_ends:Array(Int64)}))
        AND has({metrics:Array(String)}, toString(MetricName))
)
ARRAY JOIN arrayFilter((_, a, b) -> time_ns >= a AND time_ns < b, {window_labels:Array(UInt16)},
    {window_starts:Array(Int64)}, {window_ends:Array(Int64)}) AS label
GROUP BY label, service, metric
LIMIT 1000
