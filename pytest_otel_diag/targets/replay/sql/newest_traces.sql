-- End of the newest span that had ended by an instant.
SELECT max(end_ns) AS newest_ns, count() AS rows
FROM
(
    SELECT toUnixTimestamp64Nano(toDateTime64(Timestamp, 9)) + greatest(toInt64(Duration), 0) AS end_ns
    FROM otel_traces
)
WHERE end_ns <= {until_ns:Int64}
