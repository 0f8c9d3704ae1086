-- Relation `lines`: log lines of the windows with their template. The template is the first 500 bytes
-- of the first line of the body with every word that holds a digit replaced by <*>.
SELECT
    ServiceName AS service,
    SeverityText AS severity,
    match(upper(SeverityText), '^(WARN|ERR|CRIT|FATAL|ALERT|EMERG)') AS severe,
    TraceId AS trace_id,
    toUInt16(arrayFirstIndex((a, b) -> time_ns >= a AND time_ns < b,
        {window_starts:Array(Int64)}, {window_ends:Array(Int64)})) AS win,
    replaceRegexpAll(substring(splitByChar('\n', Body)[1], 1, 500),
        '[A-Za-z_.:+-]*[0-9][0-9A-Za-z_.:+-]*', '<*>') AS template,
    toUnixTimestamp64Nano(toDateTime64(Timestamp, 9)) AS time_ns
FROM otel_logs
WHERE Timestamp >= fromUnixTimestamp64Nano(arrayMin({window_starts:Array(Int64)}))
    AND Timestamp < fromUnixTimestamp64Nano(arrayMax({window_ends:Array(Int64)}))
    AND win > 0
