-- The critical paths of the slowest roots, tiled: one row a path with its segments in order of time.
-- A segment is (span, parent span, service, operation, start_ns, end_ns): the span's own time there.
SELECT
    trace,
    win,
    ids[root] AS root_span,
    services[root] AS service,
    operations[root] AS operation,
    starts[root] AS start_ns,
    ends[root] AS end_ns,
    arrayMap(x -> (ids[x.3], if(parents[x.3] = 0, 0, ids[parents[x.3]]), services[x.3], operations[x.3], x.1, x.2),
        arraySort(arrayFilter(x -> x.2 > x.1 AND tops[x.3] = root, tiles))) AS segments
FROM
(
    SELECT
        trace, win, ids, parents, services, operations, starts, ends, tops,
        arrayConcat(
            arrayMap((owner, i, cursor) -> (rights[i], cursor, owner), owners, chosen, cursors),
            arrayMap((i, owner) -> (lefts[owner], lefts[i], owner),
                arrayFilter((i, owner, next) -> owner != next, chosen, owners, arrayShiftLeft(owners, 1)),
                arrayFilter((owner, next) -> owner != next, owners, arrayShiftLeft(owners, 1))),
            arrayMap(i -> (lefts[i], rights[i], toUInt64(i)),
                arrayFilter((i, on) -> on = 1 AND NOT has(owners, i), arrayEnumerate(on_path), on_path))
        ) AS tiles,
        arrayJoin(arrayFilter((i, p) -> p = 0, arrayEnumerate(parents), parents)) AS root
    FROM (SELECT *, arrayMap(i -> parents[i], chosen) AS owners FROM walked)
)
ORDER BY end_ns - start_ns DESC, trace, root_span, start_ns, service, operation, segments
LIMIT {rows:UInt64}
