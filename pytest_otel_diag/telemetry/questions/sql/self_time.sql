-- Self time per service and operation, in milliseconds.
SELECT
    win,
    service,
    operation,
    count() AS spans,
    sum(self_ns) / 1e6 AS total_ms,
    arrayMap(x -> x / 1e6, quantilesTDigest(0.5, 0.95, 0.99)(self_ns)) AS self_ms
FROM selves
GROUP BY win, service, operation
ORDER BY win, service, operation
LIMIT {rows:UInt64}
