-- Relation `placed`: one row a trace and window, its spans as arrays in one canonical order, so that
-- neither the order of rows nor duplicate span ids (the earliest counts as the parent) change a result.
-- parents: index of the parent within the trace; 0 for roots, for spans whose parent is missing, for
-- spans that name themselves, and for consumers (asynchronous: no caller waits for them).
SELECT
    trace, win, ids, starts, ends, services, operations, errors,
    arrayMap((up, i) -> if(up = 0, 0, (indexOf(ids, up) AS at) * (at != i)), ups, arrayEnumerate(ids)) AS parents
FROM
(
    SELECT
        trace,
        win,
        arrayMap(i -> ids_0[i], canonical) AS ids,
        arrayMap(i -> ups_0[i], canonical) AS ups,
        arrayMap(i -> starts_0[i], canonical) AS starts,
        arrayMap(i -> ends_0[i], canonical) AS ends,
        arrayMap(i -> services_0[i], canonical) AS services,
        arrayMap(i -> operations_0[i], canonical) AS operations,
        arrayMap(i -> errors_0[i], canonical) AS errors
    FROM
    (
        SELECT
            trace,
            win,
            groupArray(span) AS ids_0,
            groupArray(if(kind = 'Consumer', 0, parent)) AS ups_0,
            groupArray(start_ns) AS starts_0,
            groupArray(end_ns) AS ends_0,
            groupArray(service) AS services_0,
            groupArray(operation) AS operations_0,
            groupArray(error) AS errors_0,
            arrayMap(x -> x.8, arraySort(arrayZip(starts_0, ends_0, ids_0, ups_0, services_0, operations_0,
                errors_0, arrayEnumerate(ids_0)))) AS canonical
        FROM spans
        GROUP BY trace, win
    )
)
