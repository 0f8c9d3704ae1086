-- Service paths: from every root downwards along its longest critical child, 64 spans at most, repeated
-- services merged. Latency is the root's; a request failed when any span of the chain did.
WITH
    arraySort(arrayMap(i -> (parents[i], lefts[i] - rights[i], i), chosen)) AS heirs,
    arrayMap(x -> x.1, heirs) AS owners,
    arrayMap(x -> toUInt64(x.3), heirs) AS favourites,
    arrayFilter((i, p) -> p = 0, arrayEnumerate(parents), parents) AS roots,
    range(least(length(chosen), 63)) AS steps,
    arrayFold((acc, step) -> arrayMap(chain ->
        if((indexOf(owners, chain[-1]) AS at) = 0, chain, arrayPushBack(chain, favourites[at])), acc),
        steps, arrayMap(i -> [toUInt64(i)], roots)) AS chains
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
    FROM walked
)
GROUP BY win, services
ORDER BY win, total_ms DESC, services
LIMIT {rows:UInt64}
