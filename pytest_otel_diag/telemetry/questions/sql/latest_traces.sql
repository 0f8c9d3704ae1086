SELECT max(toUnixTimestamp64Nano(toDateTime64(Timestamp, 9)) + greatest(toInt64(Duration), 0)) AS newest_ns,
    count() AS rows
FROM otel_traces
WHERE toUnixTimestamp64Nano(toDateTime64(Timestamp, 9)) + greatest(toInt64(Duration), 0) <= {until_ns:Int64}
