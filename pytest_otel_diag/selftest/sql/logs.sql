-- Lines of one service in two windows, by severity and by text without its numbers.
WITH
    toUnixTimestamp64Nano(toDateTime64(Timestamp, 9)) AS at_ns,
    at_ns >= {then_start:Int64} AND at_ns < {then_end:Int64} AS later,
    at_ns >= {quiet_start:Int64} AND at_ns < {quiet_end:Int64} AS before
SELECT
    replaceRegexpAll(substring(Body, 1, 200), '[0-9a-fA-F-]{8,}|[0-9]+', '#') AS text,
    SeverityNumber >= 13 AS warning,
    countIf(before) AS n_before,
    countIf(later) AS n_then
FROM otel_logs
WHERE ServiceName = {service:String}
  AND Timestamp >= fromUnixTimestamp64Nano({quiet_start:Int64})
  AND Timestamp < fromUnixTimestamp64Nano({then_end:Int64})
  AND (before OR later)
GROUP BY text, warning
ORDER BY n_then DESC, text
LIMIT 1000
