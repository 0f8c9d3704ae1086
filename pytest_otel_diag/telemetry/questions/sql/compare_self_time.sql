-- Before and after, self time of every operation: the last window is after, all others are before.
SELECT
    service,
    operation,
    countIf(NOT late) AS spans_before,
    countIf(late) AS spans_after,
    arrayMap(x -> x / 1e6, quantilesTDigestIf(0.5, 0.95, 0.99)(self_ns, NOT late)) AS ms_before,
    arrayMap(x -> x / 1e6, quantilesTDigestIf(0.5, 0.95, 0.99)(self_ns, late)) AS ms_after,
    sumIf(self_ns, NOT late) / 1e6 AS total_ms_before,
    sumIf(self_ns, late) / 1e6 AS total_ms_after
FROM (SELECT *, win = length({window_starts:Array(Int64)}) AS late FROM selves)
GROUP BY service, operation
ORDER BY service, operation
LIMIT {rows:UInt64}
