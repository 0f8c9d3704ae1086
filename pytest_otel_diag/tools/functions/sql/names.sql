SELECT DISTINCT toString(ServiceName) AS service
FROM TABLE_NAME
WHERE TIME >= fromUnixTimestamp64Nano(arrayMin({window_starts:Array(Int64)}))
  AND TIME < fromUnixTimestamp64Nano(arrayMax({window_ends:Array(Int64)}))
