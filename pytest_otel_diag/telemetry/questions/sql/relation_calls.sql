-- Relation `calls`: one row a call between services, that is a span whose parent lies in another service.
-- The call failed when either side did; its latency is the caller's where the caller's side is a client
-- span (that includes the network), the callee's otherwise. Of duplicate span ids the earliest counts.
SELECT
    win,
    arrayJoin(arrayFilter(x -> x.1 != x.2, arrayMap((at, service, error, duration) -> (
        services[at], service, toUInt8(greatest(errors[at], error)), if(kinds[at] = 'Client', durations[at], duration)
    ),
        arrayFilter(at -> at > 0, ats),
        arrayFilter((x, at) -> at > 0, services, ats),
        arrayFilter((x, at) -> at > 0, errors, ats),
        arrayFilter((x, at) -> at > 0, durations, ats)))) AS call,
    call.1 AS caller,
    call.2 AS callee,
    call.3 AS failed,
    call.4 AS latency_ns
FROM
(
    WITH arrayMap(x -> x.7, arraySort(arrayZip(starts, durations, ids, services, kinds, errors,
        arrayEnumerate(ids)))) AS canonical
    SELECT
        win, services, errors, kinds, durations,
        arrayMap(up -> if(up = 0, 0, canonical[indexOf(arrayMap(i -> ids[i], canonical) AS ordered, up)]), ups) AS ats
    FROM
    (
        SELECT
            win,
            groupArray(span) AS ids,
            groupArray(parent) AS ups,
            groupArray(start_ns) AS starts,
            groupArray(service) AS services,
            groupArray(kind) AS kinds,
            groupArray(error) AS errors,
            groupArray(duration_ns) AS durations
        FROM spans
        GROUP BY trace, win
    )
)
