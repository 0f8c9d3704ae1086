-- Services that otel_metrics_sum names in the window.
SELECT DISTINCT ServiceName AS service
FROM otel_metrics_sum
WHERE TimeUnix >= fromUnixTimestamp64Nano({start_ns:Int64})
  AND TimeUnix < fromUnixTimestamp64Nano({end_ns:Int64})
ORDER BY service
