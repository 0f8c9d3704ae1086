-- Before and after, every operation in one pass: the last window is after, all others are before.
SELECT
    service,
    operation,
    countIf(NOT late) AS spans_before,
    countIf(late) AS spans_after,
    countIf(error = 1 AND NOT late) AS errors_before,
    countIf(error = 1 AND late) AS errors_after,
    arrayMap(x -> x / 1e6, quantilesTDigestIf(0.5, 0.95, 0.99)(duration_ns, NOT late)) AS ms_before,
    arrayMap(x -> x / 1e6, quantilesTDigestIf(0.5, 0.95, 0.99)(duration_ns, late)) AS ms_after
FROM (SELECT *, win = length({window_starts:Array(Int64)}) AS late FROM spans)
GROUP BY service, operation
ORDER BY service, operation
LIMIT {rows:UInt64}
