-- Calls of some services in windows, by operation and kind: win is the index of the window.
SELECT
    win,
    service,
    operation,
    kind,
    parent = 0 AS root,
    count() AS calls,
    countIf(error = 1) AS failed,
    max(duration_ns) AS longest_ns
FROM spans
WHERE service IN {services:Array(String)}
GROUP BY win, service, operation, kind, root
LIMIT 5000
