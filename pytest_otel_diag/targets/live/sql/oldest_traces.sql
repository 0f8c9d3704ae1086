-- Where traces begin, looked for in recent time only.
SELECT toUnixTimestamp64Nano(toDateTime64(min(Timestamp), 9)) AS oldest_ns, count() AS rows
FROM otel_traces
WHERE Timestamp >= fromUnixTimestamp64Nano({since_ns:Int64})
