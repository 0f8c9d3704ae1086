SELECT
    toString(service) AS name,
    toUInt64(0) AS spans, toUInt64(0) AS requests, toUInt64(0) AS errors, nan AS p95_ms,
    toUInt64(0) AS operations, toUInt64(0) AS instances,
    count() AS lines, countIf(severe) AS severe, toUInt64(0) AS metrics
FROM lines
GROUP BY name
