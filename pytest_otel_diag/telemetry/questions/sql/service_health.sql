-- Requests a service answers (server and consumer spans, and roots), per bucket of bucket_ns from
-- the start of the first window. Latency in milliseconds.
SELECT
    service,
    arrayMin({window_starts:Array(Int64)})
        + intDiv(start_ns - arrayMin({window_starts:Array(Int64)}), {bucket_ns:Int64}) * {bucket_ns:Int64} AS bucket,
    count() AS requests,
    countIf(error = 1) AS errors,
    arrayMap(x -> x / 1e6, quantilesExact(0.5, 0.95, 0.99)(duration_ns)) AS latency_ms
FROM spans
WHERE kind IN ('Server', 'Consumer') OR parent = 0
GROUP BY service, bucket
ORDER BY service, bucket
