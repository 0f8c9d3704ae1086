-- What the critical paths are made of: own time on the path per service and operation.
-- on_path: spans on a path; own_ms: their time that no critical child covers.
SELECT
    win,
    piece.1 AS service,
    piece.2 AS operation,
    sum(piece.4) AS on_path,
    sum(piece.3) / 1e6 AS own_ms
FROM
(
    SELECT
        win,
        arrayJoin(arrayConcat(
            arrayMap((on, service, operation, s, e) -> (service, operation, toInt64(e - s), 1),
                arrayFilter(on -> on = 1, on_path),
                arrayFilter((x, on) -> on = 1, services, on_path),
                arrayFilter((x, on) -> on = 1, operations, on_path),
                arrayFilter((x, on) -> on = 1, lefts, on_path),
                arrayFilter((x, on) -> on = 1, rights, on_path)),
            arrayMap(i -> (services[parents[i]], operations[parents[i]], toInt64(lefts[i] - rights[i]), 0), chosen)
        )) AS piece
    FROM walked
)
GROUP BY win, service, operation
ORDER BY win, own_ms DESC, service, operation
LIMIT {rows:UInt64}
