-- Services that otel_logs names in the window.
SELECT DISTINCT ServiceName AS service
FROM otel_logs
WHERE Timestamp >= fromUnixTimestamp64Nano({start_ns:Int64})
  AND Timestamp < fromUnixTimestamp64Nano({end_ns:Int64})
ORDER BY service
