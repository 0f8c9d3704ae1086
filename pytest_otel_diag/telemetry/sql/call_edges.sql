-- Calls between services: a span whose parent lies in another service. The call failed when either
-- side did; its latency is the caller's where the caller's side is a client span (that includes the
-- network), the callee's otherwise. Duplicate span ids count with their first occurrence.
SELECT
    caller,
    callee,
    count() AS calls,
    countIf(failed) AS errors,
    quantileExact(0.5)(latency_ns) / 1e6 AS p50_ms,
    quantileExact(0.99)(latency_ns) / 1e6 AS p99_ms
FROM
(
    SELECT
        arrayJoin(arrayMap((p, service, error, duration) -> (
            indexOf(ids, p) AS at, services[at], service, greatest(errors[at], error),
            if(kinds[at] = 'Client', durations[at], duration)
        ), parents, services, errors, durations)) AS pair,
        pair.2 AS caller,
        pair.3 AS callee,
        pair.4 AS failed,
        pair.5 AS latency_ns
    FROM
    (
        SELECT
            groupArray(span) AS ids,
            groupArray(parent) AS parents,
            groupArray(service) AS services,
            groupArray(kind) AS kinds,
            groupArray(error) AS errors,
            groupArray(duration_ns) AS durations
        FROM spans
        GROUP BY trace, win
    )
    WHERE pair.1 > 0 AND caller != callee
)
GROUP BY caller, callee
ORDER BY caller, callee
