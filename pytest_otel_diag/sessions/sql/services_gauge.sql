-- Services that otel_metrics_gauge names in the window.
SELECT DISTINCT ServiceName AS service
FROM otel_metrics_gauge
WHERE TimeUnix >= fromUnixTimestamp64Nano({start_ns:Int64})
  AND TimeUnix < fromUnixTimestamp64Nano({end_ns:Int64})
ORDER BY service
