-- Calls of some services in labelled windows, which may overlap: of the service, of each operation, and both
-- apart by role. The durations of the first 200 calls are exact; quantiles beyond have neighbours at ± 0.5 %.
SELECT
    label,
    toString(service) AS service_name,
    toString(operation) AS operation_name,
    multiIf(kind IN ('Server', 'Consumer') OR parent = 0, 'entry', kind IN ('Client', 'Producer'), 'exit', 'inner')
        AS role,
    grouping(operation_name) AS of_service,
    grouping(role) AS of_any_role,
    count() AS calls,
    countIf(error = 1) AS failed,
    max(duration_ns) AS longest_ns,
    groupArray(200)(duration_ns) AS first_ns,
    quantilesExact(0.495, 0.5, 0.505, 0.945, 0.95, 0.955, 0.985, 0.99, 0.995)(duration_ns) AS quantiles_ns
FROM spans
ARRAY JOIN arrayFilter((_, a, b) -> start_ns >= a AND start_ns < b, {window_labels:Array(UInt16)},
    {window_starts:Array(Int64)}, {window_ends:Array(Int64)}) AS label
WHERE service IN {services:Array(String)}
GROUP BY GROUPING SETS (
    (label, service_name), (label, service_name, role),
    (label, service_name, operation_name), (label, service_name, operation_name, role))
ORDER BY label, service_name, of_service DESC, calls DESC
LIMIT 5000
