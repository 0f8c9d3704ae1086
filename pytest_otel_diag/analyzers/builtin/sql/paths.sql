-- Service paths from the root of a trace to every span that enters a service, with the time spent there.
-- Chains are followed upwards for at most 24 calls, which ends cycles; traces above 2,000 spans are left out.
WITH trees AS (
    SELECT trace, groupArray(span) AS ids, groupArray(parent) AS parents, groupArray(toString(service)) AS services,
        groupArray(duration_ns / 1e6) AS took, groupArray(error) AS errors
    FROM spans GROUP BY trace HAVING length(ids) <= 2000
),
steps AS (
    SELECT trace, services, took, errors,
        arrayMap((p, s) -> if(p = 0 OR p = s, 0, indexOf(ids, p)), parents, ids) AS up,
        arrayFilter(i -> up[i] = 0 OR services[up[i]] != services[i], arrayEnumerate(ids)) AS entries
    FROM trees
),
chains AS (
    SELECT trace, took, errors, i,
        arrayFold((acc, k) -> if(acc.1 = 0, acc, (toUInt64(up[acc.1]), arrayPushFront(acc.2, services[acc.1]), acc.1)),
            range(24), (toUInt64(i), emptyArrayString(), toUInt64(i))) AS walk
    FROM steps ARRAY JOIN entries AS i
)
SELECT arrayCompact(walk.2) AS path, uniqExact(trace) AS requests, avg(took[walk.3]) AS mean_ms,
    quantileExact(0.99)(took[walk.3]) AS p99_ms, avg(errors[i] = 1 OR errors[walk.3] = 1) AS failing,
    sum(took[i]) AS spent_ms
FROM chains GROUP BY path ORDER BY spent_ms DESC, path LIMIT {paths:UInt32}
