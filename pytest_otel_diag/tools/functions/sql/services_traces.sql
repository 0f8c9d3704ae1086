-- What a service answers: its server, consumer and root spans.
SELECT
    toString(service) AS name,
    count() AS spans,
    countIf(kind IN ('Server', 'Consumer') OR parent = 0) AS requests,
    countIf(error = 1 AND (kind IN ('Server', 'Consumer') OR parent = 0)) AS errors,
    quantileExactIf(0.95)(duration_ns, kind IN ('Server', 'Consumer') OR parent = 0) / 1e6 AS p95_ms,
    uniqExact(operation) AS operations,
    uniqExactIf(instance, instance != '') AS instances,
    toUInt64(0) AS lines, toUInt64(0) AS severe, toUInt64(0) AS metrics
FROM spans
GROUP BY name
