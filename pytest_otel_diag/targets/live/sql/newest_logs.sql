-- Newest telemetry of one table, looked for in recent time only: the whole table may be months long.
SELECT toUnixTimestamp64Nano(toDateTime64(max(Timestamp), 9)) AS newest_ns, count() AS rows
FROM otel_logs
WHERE Timestamp >= fromUnixTimestamp64Nano({since_ns:Int64})
