-- Instances that began within the window: a source whose oldest series does, by bucket of the beginning.
SELECT
    service,
    arrayMin({window_starts:Array(Int64)})
        + intDiv(epoch_ns - arrayMin({window_starts:Array(Int64)}), {bucket_ns:Int64}) * {bucket_ns:Int64} AS bucket,
    uniqExact(source, epoch_ns) AS instances
FROM
(
    SELECT service, source, time_ns, min(begun_ns) AS epoch_ns
    FROM points
    WHERE begun_ns > 0
    GROUP BY service, source, time_ns
)
WHERE epoch_ns > arrayMin({window_starts:Array(Int64)})
GROUP BY service, bucket
ORDER BY service, bucket
