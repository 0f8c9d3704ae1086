-- Time of the newest log line up to an instant.
SELECT toUnixTimestamp64Nano(toDateTime64(max(Timestamp), 9)) AS newest_ns, count() AS rows
FROM otel_logs
WHERE Timestamp <= fromUnixTimestamp64Nano({until_ns:Int64})
