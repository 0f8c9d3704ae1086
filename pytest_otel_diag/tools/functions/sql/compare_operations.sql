-- Operations in both parts of a comparison: the first {late} windows, and the others.
SELECT
    toString(service) AS name,
    toString(operation) AS operation_name,
    countIf(late) AS calls,
    countIf(NOT late) AS calls_before,
    countIf(error = 1 AND late) AS errors,
    countIf(error = 1 AND NOT late) AS errors_before,
    quantileExactIf(0.95)(duration_ns, late) / 1e6 AS p95_ms,
    quantileExactIf(0.95)(duration_ns, NOT late) / 1e6 AS p95_ms_before
FROM (SELECT *, win <= {late:UInt16} AS late FROM spans)
WHERE empty({services:Array(String)}) OR has({services:Array(String)}, toString(service))
GROUP BY name, operation_name
ORDER BY calls + calls_before DESC, name, operation_name
LIMIT {rows:UInt64}
