-- Newest telemetry of one table, looked for in recent time only: the whole table may be months long.
SELECT toUnixTimestamp64Nano(toDateTime64(max(TimeUnix), 9)) AS newest_ns, count() AS rows
FROM {table:Identifier}
WHERE TimeUnix >= fromUnixTimestamp64Nano({since_ns:Int64})
