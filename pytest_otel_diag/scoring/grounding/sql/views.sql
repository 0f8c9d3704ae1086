-- Other views on the calls of some services, in labelled windows: as their callers see them (client spans with
-- a child in the service, or that are named alike), and with failures that spans below have and they pass on.
SELECT
    label,
    toString(subject) AS service,
    groupArray(200)(duration_ns) AS first_ns,
    count() AS calls,
    countIf(error) AS failed,
    max(duration_ns) AS longest_ns,
    quantilesExact(0.495, 0.5, 0.505, 0.945, 0.95, 0.955, 0.985, 0.99, 0.995)(duration_ns) AS quantiles_ns,
    if(passing, 'with failures that it passes on', 'as its callers see it') AS words
FROM (
    SELECT service AS subject, toUInt8(1) AS passing, '' AS caller, operation, kind, start_ns, duration_ns,
        error = 1 OR cityHash64(trace, span) IN (
            SELECT cityHash64(trace, parent) FROM spans WHERE error = 1 AND parent != 0) AS error
    FROM spans WHERE service IN {services:Array(String)}
    UNION ALL
    SELECT callee AS subject, toUInt8(0) AS passing, service AS caller, operation, kind, start_ns, duration_ns,
        error = 1 AS error
    FROM spans AS seen
    INNER JOIN (
        SELECT DISTINCT one.service AS by, one.operation AS name, child.service AS callee
        FROM (SELECT trace, span, service, operation FROM spans WHERE kind IN ('Client', 'Producer')) AS one
        INNER JOIN (SELECT trace, parent, service FROM spans WHERE service IN {services:Array(String)}) AS child
            ON one.trace = child.trace AND one.span = child.parent
        WHERE one.service != child.service
        UNION DISTINCT
        SELECT DISTINCT one.service AS by, one.operation AS name, child.service AS callee
        FROM (SELECT DISTINCT service, operation FROM spans WHERE kind IN ('Client', 'Producer')) AS one
        INNER JOIN (
            SELECT DISTINCT service, operation FROM spans
            WHERE service IN {services:Array(String)} AND kind IN ('Server', 'Consumer')) AS child
            ON one.operation = child.operation
        WHERE one.service != child.service
    ) AS pairs ON seen.service = pairs.by AND seen.operation = pairs.name
    WHERE seen.kind IN ('Client', 'Producer')
)
ARRAY JOIN arrayFilter((_, a, b) -> start_ns >= a AND start_ns < b, {window_labels:Array(UInt16)},
    {window_starts:Array(Int64)}, {window_ends:Array(Int64)}) AS label
GROUP BY GROUPING SETS (
    (label, subject, passing), (label, subject, passing, kind), (label, subject, passing, operation),
    (label, subject, passing, operation, kind), (label, subject, passing, caller),
    (label, subject, passing, caller, operation))
ORDER BY label, service, calls DESC
LIMIT 5000
