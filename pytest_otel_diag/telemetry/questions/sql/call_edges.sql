-- Calls between services.
SELECT
    caller,
    callee,
    count() AS calls,
    countIf(failed = 1) AS errors,
    quantileExact(0.5)(latency_ns) / 1e6 AS p50_ms,
    quantileExact(0.99)(latency_ns) / 1e6 AS p99_ms
FROM calls
GROUP BY caller, callee
ORDER BY caller, callee
