-- Relation `rates`: `grown`, added up over the series of one source at an instant.
SELECT
    service, metric, source, time_ns,
    arrayMin({window_starts:Array(Int64)})
        + intDiv(time_ns - arrayMin({window_starts:Array(Int64)}), {bucket_ns:Int64}) * {bucket_ns:Int64} AS bucket,
    sum(amount_rate) AS amount_rate,
    sum(count_rate) AS count_rate
FROM grown
GROUP BY service, metric, source, time_ns
