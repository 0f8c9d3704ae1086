-- Sums: the rate of what only grows, the level of what goes up and down; averaged over a bucket.
SELECT service, metric, kind, bucket, avg(amount) AS value
FROM
(
    SELECT service, metric, 'rate' AS kind, bucket, amount_rate AS amount
    FROM rates
    UNION ALL
    SELECT
        service, metric, 'level' AS kind,
        arrayMin({window_starts:Array(Int64)})
            + intDiv(time_ns - arrayMin({window_starts:Array(Int64)}), {bucket_ns:Int64}) * {bucket_ns:Int64} AS bucket,
        sum(Value) AS amount
    FROM points
    WHERE NOT IsMonotonic AND isFinite(Value)
    GROUP BY service, metric, source, time_ns
)
GROUP BY service, metric, kind, bucket
ORDER BY service, metric, kind, bucket
