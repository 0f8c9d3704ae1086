-- Levels. A gauge of whole numbers that never falls and mostly rises (such as the offset of a queue) is in fact
-- a counter: its increments count events, like those of a cumulative sum.
SELECT service, metric, unit, series, p.1 AS at_ns, p.2 AS value, p.3 AS hits, p.4 AS seconds, whole FROM (
    SELECT OWNER AS service, MetricName AS metric, any(MetricUnit) AS unit,
        arrayStringConcat(arraySort(arrayMap((k, v) -> concat(k, '=', v), mapKeys(Attributes), mapValues(Attributes))), ',') AS series,
        cityHash64(ResourceAttributes) AS source,
        arraySort(groupArray((toUnixTimestamp64Nano(toDateTime64(TimeUnix, 9)), toFloat64(Value)))) AS ps,
        arrayAll(x -> x.2 = round(x.2), ps) AS whole,
        arrayMap((x, y) -> x.1 - y.1, arrayPopFront(ps), arrayPopBack(ps)) AS gaps,
        arrayMap((x, y) -> x.2 - y.2, arrayPopFront(ps), arrayPopBack(ps)) AS changes,
        arrayReduce('quantileExact(0.5)', gaps) AS usual,
        whole AND NOT arrayExists(x -> x < 0, changes) AND 2 * arrayCount(x -> x > 0, changes) > length(changes) AS counter,
        if(counter,
            arrayFilter(z -> isFinite(z.2), arrayMap((x, change, gap) -> (x.1,
                if(gap > 0 AND gap <= 3 * usual, change / (gap / 1e9), nan), change, gap / 1e9),
                arrayPopFront(ps), changes, gaps)),
            arrayMap(x -> (x.1, x.2, nan, 0.), ps)) AS steps
    FROM otel_metrics_gauge
    WHERE TimeUnix >= fromUnixTimestamp64Nano(arrayMin({window_starts:Array(Int64)}))
      AND TimeUnix < fromUnixTimestamp64Nano(arrayMax({window_ends:Array(Int64)}))
    GROUP BY service, metric, series, source
)
ARRAY JOIN steps AS p
