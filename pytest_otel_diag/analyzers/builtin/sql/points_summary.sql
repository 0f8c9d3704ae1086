-- The mean of the observations since the previous point, or of a delta point itself.
SELECT service, metric, unit, series, p.1 AS at_ns, p.2 AS value, nan AS hits, 0. AS seconds, 0 AS whole FROM (
    SELECT OWNER AS service, MetricName AS metric, any(MetricUnit) AS unit,
        arrayStringConcat(arraySort(arrayMap((k, v) -> concat(k, '=', v), mapKeys(Attributes), mapValues(Attributes))), ',') AS series,
        cityHash64(ResourceAttributes) AS source,
        toUInt8(1) AS cumulative,
        arraySort(groupArray((toUnixTimestamp64Nano(toDateTime64(TimeUnix, 9)), toFloat64(Sum), toFloat64(Count)))) AS ps,
        arrayMap((x, y) -> x.1 - y.1, arrayPopFront(ps), arrayPopBack(ps)) AS gaps,
        arrayReduce('quantileExact(0.5)', gaps) AS usual,
        arrayFilter(z -> isFinite(z.2), if(cumulative,
            arrayMap((x, y) -> (x.1, if(x.3 > y.3 AND x.1 - y.1 <= 3 * usual, (x.2 - y.2) / (x.3 - y.3), nan)),
                arrayPopFront(ps), arrayPopBack(ps)),
            arrayMap(x -> (x.1, x.2 / x.3), ps))) AS steps
    FROM otel_metrics_summary
    WHERE TimeUnix >= fromUnixTimestamp64Nano(arrayMin({window_starts:Array(Int64)}))
      AND TimeUnix < fromUnixTimestamp64Nano(arrayMax({window_ends:Array(Int64)}))
    GROUP BY service, metric, series, source
)
ARRAY JOIN steps AS p
