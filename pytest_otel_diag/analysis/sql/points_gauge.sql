SELECT OWNER AS service, MetricName AS metric, MetricUnit AS unit,
    arrayStringConcat(arraySort(arrayMap((k, v) -> concat(k, '=', v), mapKeys(Attributes), mapValues(Attributes))), ',') AS series,
    toUnixTimestamp64Nano(toDateTime64(TimeUnix, 9)) AS at_ns, toFloat64(Value) AS value,
    nan AS hits, 0. AS seconds
FROM otel_metrics_gauge
WHERE TimeUnix >= fromUnixTimestamp64Nano(arrayMin({window_starts:Array(Int64)}))
  AND TimeUnix < fromUnixTimestamp64Nano(arrayMax({window_ends:Array(Int64)}))
