-- A cumulative monotonic sum becomes a rate per second: the increment since the previous point, unless the
-- counter was reset (a decrement) or the points are in different windows of telemetry. Whole-number increments
-- count events as hits over seconds, so that rare events can be tested for significance.
SELECT service, metric, unit, series, p.1 AS at_ns, p.2 AS value, if(whole, p.3, nan) AS hits, p.4 AS seconds, whole FROM (
    SELECT OWNER AS service, MetricName AS metric, any(MetricUnit) AS unit,
        arrayStringConcat(arraySort(arrayMap((k, v) -> concat(k, '=', v), mapKeys(Attributes), mapValues(Attributes))), ',') AS series,
        cityHash64(ResourceAttributes) AS source,
        max(IsMonotonic AND toString(AggregationTemporality) IN ('2', 'Cumulative', 'AGGREGATION_TEMPORALITY_CUMULATIVE')) AS counter,
        arraySort(groupArray((toUnixTimestamp64Nano(toDateTime64(TimeUnix, 9)), toFloat64(Value)))) AS ps,
        arrayMap((x, y) -> x.1 - y.1, arrayPopFront(ps), arrayPopBack(ps)) AS gaps,
        arrayReduce('quantileExact(0.5)', gaps) AS usual,
        if(counter,
            arrayFilter(z -> isFinite(z.2), arrayMap((x, y) -> (x.1,
                if(x.2 >= y.2 AND x.1 > y.1 AND x.1 - y.1 <= 3 * usual, (x.2 - y.2) / ((x.1 - y.1) / 1e9), nan),
                x.2 - y.2, (x.1 - y.1) / 1e9),
                arrayPopFront(ps), arrayPopBack(ps))),
            arrayMap(x -> (x.1, x.2, nan, 0.), ps)) AS steps,
        arrayAll(x -> x.2 = round(x.2), ps) AS whole
    FROM otel_metrics_sum
    WHERE TimeUnix >= fromUnixTimestamp64Nano(arrayMin({window_starts:Array(Int64)}))
      AND TimeUnix < fromUnixTimestamp64Nano(arrayMax({window_ends:Array(Int64)}))
    GROUP BY service, metric, series, source
)
ARRAY JOIN steps AS p
