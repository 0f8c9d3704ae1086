SELECT
    toString(ServiceName) AS name,
    toUInt64(0) AS spans, toUInt64(0) AS requests, toUInt64(0) AS errors, nan AS p95_ms,
    toUInt64(0) AS operations, toUInt64(0) AS instances,
    toUInt64(0) AS lines, toUInt64(0) AS severe, uniqExact(MetricName) AS metrics
FROM TABLE_NAME
WHERE TimeUnix >= fromUnixTimestamp64Nano(arrayMin({window_starts:Array(Int64)}))
  AND TimeUnix < fromUnixTimestamp64Nano(arrayMax({window_ends:Array(Int64)}))
  AND arrayExists((a, b) -> TimeUnix >= fromUnixTimestamp64Nano(a) AND TimeUnix < fromUnixTimestamp64Nano(b),
      {window_starts:Array(Int64)}, {window_ends:Array(Int64)})
GROUP BY name
