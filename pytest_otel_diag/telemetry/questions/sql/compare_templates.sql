-- Before and after, every log template: the last window is after, all others are before.
SELECT
    service,
    severity,
    template,
    countIf(NOT late) AS lines_before,
    countIf(late) AS lines_after,
    anyIf(trace_id, late AND trace_id != '') AS trace_id
FROM (SELECT *, win = length({window_starts:Array(Int64)}) AS late FROM lines)
GROUP BY service, severity, template
ORDER BY service, severity, template
LIMIT {rows:UInt64}
