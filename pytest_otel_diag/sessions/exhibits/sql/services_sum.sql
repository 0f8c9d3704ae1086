-- Services that otel_metrics_sum names in any of the windows.
SELECT DISTINCT ServiceName AS service
FROM otel_metrics_sum
WHERE TimeUnix >= fromUnixTimestamp64Nano(arrayMin({starts:Array(Int64)}))
  AND TimeUnix < fromUnixTimestamp64Nano(arrayMax({ends:Array(Int64)}))
  AND arrayExists(
      (start, end) -> TimeUnix >= fromUnixTimestamp64Nano(start) AND TimeUnix < fromUnixTimestamp64Nano(end),
      {starts:Array(Int64)}, {ends:Array(Int64)})
