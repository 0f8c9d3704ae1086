-- Services that otel_traces names in any of the windows.
SELECT DISTINCT ServiceName AS service
FROM otel_traces
WHERE Timestamp >= fromUnixTimestamp64Nano(arrayMin({starts:Array(Int64)}))
  AND Timestamp < fromUnixTimestamp64Nano(arrayMax({ends:Array(Int64)}))
  AND arrayExists(
      (start, end) -> Timestamp >= fromUnixTimestamp64Nano(start) AND Timestamp < fromUnixTimestamp64Nano(end),
      {starts:Array(Int64)}, {ends:Array(Int64)})
