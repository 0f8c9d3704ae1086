-- Services that otel_traces names in the window.
SELECT DISTINCT ServiceName AS service
FROM otel_traces
WHERE Timestamp >= fromUnixTimestamp64Nano({start_ns:Int64})
  AND Timestamp < fromUnixTimestamp64Nano({end_ns:Int64})
ORDER BY service
