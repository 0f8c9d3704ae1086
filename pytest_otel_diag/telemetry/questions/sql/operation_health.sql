-- Calls of the operations of some services, per bucket of bucket_ns from the start of the first window.
-- Latency in milliseconds.
SELECT
    service,
    operation,
    arrayMin({window_starts:Array(Int64)})
        + intDiv(start_ns - arrayMin({window_starts:Array(Int64)}), {bucket_ns:Int64}) * {bucket_ns:Int64} AS bucket,
    count() AS calls,
    countIf(error = 1) AS errors,
    quantileExact(0.95)(duration_ns) / 1e6 AS p95_ms,
    max(duration_ns) / 1e6 AS max_ms
FROM spans
WHERE has({services:Array(String)}, toString(service))
GROUP BY service, operation, bucket
ORDER BY service, operation, bucket
