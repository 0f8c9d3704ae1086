SELECT toUnixTimestamp64Nano(toDateTime64(max(Timestamp), 9)) AS newest_ns, count() AS rows
FROM otel_logs
