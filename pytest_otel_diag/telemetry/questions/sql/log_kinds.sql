-- Log templates of some services: lines, and buckets of bucket_ns that hold any.
SELECT
    service,
    template,
    max(severe) AS severe_any,
    count() AS lines,
    uniqExact(intDiv(time_ns - arrayMin({window_starts:Array(Int64)}), {bucket_ns:Int64})) AS buckets
FROM lines
WHERE has({services:Array(String)}, toString(service))
GROUP BY service, template
ORDER BY buckets DESC, lines DESC, service, template
LIMIT {rows:UInt64}
