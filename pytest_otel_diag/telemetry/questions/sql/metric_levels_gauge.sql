-- Gauges: what the series of one source add up to at an instant, averaged over a bucket.
SELECT service, metric, 'level' AS kind, bucket, avg(total) AS value
FROM
(
    SELECT
        service, metric, source, time_ns,
        arrayMin({window_starts:Array(Int64)})
            + intDiv(time_ns - arrayMin({window_starts:Array(Int64)}), {bucket_ns:Int64}) * {bucket_ns:Int64} AS bucket,
        sum(Value) AS total
    FROM points
    WHERE isFinite(Value)
    GROUP BY service, metric, source, time_ns
)
GROUP BY service, metric, bucket
ORDER BY service, metric, bucket
