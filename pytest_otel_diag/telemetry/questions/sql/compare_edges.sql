-- Before and after, every call between services: the last window is after, all others are before.
SELECT
    caller,
    callee,
    countIf(NOT late) AS calls_before,
    countIf(late) AS calls_after,
    countIf(failed = 1 AND NOT late) AS errors_before,
    countIf(failed = 1 AND late) AS errors_after,
    arrayMap(x -> x / 1e6, quantilesTDigestIf(0.5, 0.95, 0.99)(latency_ns, NOT late)) AS ms_before,
    arrayMap(x -> x / 1e6, quantilesTDigestIf(0.5, 0.95, 0.99)(latency_ns, late)) AS ms_after
FROM (SELECT *, win = length({window_starts:Array(Int64)}) AS late FROM calls)
GROUP BY caller, callee
ORDER BY caller, callee
LIMIT {rows:UInt64}
