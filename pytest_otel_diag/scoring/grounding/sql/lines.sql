-- Log lines of some services in labelled windows: all, warnings and worse, errors and worse, and those that
-- contain each of the subjects.
SELECT
    label,
    toString(ServiceName) AS service,
    count() AS lines,
    countIf(match(upper(SeverityText), '^(WARN|ERR|CRIT|FATAL|ALERT|EMERG)')) AS severe,
    countIf(match(upper(SeverityText), '^(ERR|CRIT|FATAL|ALERT|EMERG)')) AS errors,
    sumForEach(arrayMap(subject -> positionCaseInsensitive(Body, subject) > 0, {subjects:Array(String)})) AS holding
FROM (
    SELECT ServiceName, SeverityText, Body, toUnixTimestamp64Nano(toDateTime64(Timestamp, 9)) AS time_ns
    FROM otel_logs
    WHERE Timestamp >= fromUnixTimestamp64Nano(arrayMin({window_starts:Array(Int64)}))
        AND Timestamp < fromUnixTimestamp64Nano(arrayMax({window_ends:Array(Int64)}))
        AND has({services:Array(String)}, toString(ServiceName))
)
ARRAY JOIN arrayFilter((_, a, b) -> time_ns >= a AND time_ns < b, {window_labels:Array(UInt16)},
    {window_starts:Array(Int64)}, {window_ends:Array(Int64)}) AS label
GROUP BY label, service
LIMIT 1000
