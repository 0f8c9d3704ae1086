-- Service paths: from every root downwards along its longest critical child, 64 spans at most, repeated
-- services merged. Latency is the root's; a request failed when any span of the chain did.
SELECT
    win,
    path.1 AS services,
    count() AS requests,
    countIf(path.2) AS errors,
    avg(path.3) / 1e6 AS mean_ms,
    quantileTDigest(0.99)(path.3) / 1e6 AS p99_ms,
    sum(path.3) / 1e6 AS total_ms
FROM
(
    SELECT win, arrayJoin(arrayMap(chain -> (
        arrayCompact(arrayMap(i -> services[i], chain)),
        arrayExists(i -> errors[i] = 1, chain),
        ends[chain[1]] - starts[chain[1]]
    ), chains)) AS path
    FROM
    (
        SELECT
            win, services, errors, starts, ends,
            arrayFold((acc, step) -> arrayMap(chain ->
                if((indexOf(heirs.1, chain[-1]) AS at) = 0, chain, arrayPushBack(chain, toUInt64(heirs.3[at]))), acc),
                range(least(length(chosen), 63)), roots) AS chains
        FROM
        (
            SELECT
                win, services, errors, starts, ends, chosen,
                arraySort(arrayMap(i -> (parents[i], lefts[i] - rights[i], i), chosen)) AS heirs,
                arrayMap(i -> [toUInt64(i)], arrayFilter((i, p) -> p = 0, arrayEnumerate(parents), parents)) AS roots
            FROM walked
        )
    )
)
GROUP BY win, services
ORDER BY win, total_ms DESC, services
LIMIT {rows:UInt64}
