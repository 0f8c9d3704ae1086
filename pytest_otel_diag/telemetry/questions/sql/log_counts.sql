-- Log lines of some services, per bucket of bucket_ns from the start of the first window.
SELECT
    service,
    arrayMin({window_starts:Array(Int64)})
        + intDiv(time_ns - arrayMin({window_starts:Array(Int64)}), {bucket_ns:Int64}) * {bucket_ns:Int64} AS bucket,
    count() AS lines,
    countIf(severe = 1) AS severe
FROM lines
WHERE has({services:Array(String)}, toString(service))
GROUP BY service, bucket
ORDER BY service, bucket
