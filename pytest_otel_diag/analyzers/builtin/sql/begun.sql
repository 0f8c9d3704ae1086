-- When processes started within the incident, by their cumulative series. A new series may belong to an old
-- process, so the oldest series of a source (instance, receiver) counts.
SELECT service, arraySort(groupUniqArray(begun_ns)) AS begun
FROM (
    SELECT OWNER AS service, cityHash64(ResourceAttributes) AS source, TimeUnix,
        min(toUnixTimestamp64Nano(toDateTime64(StartTimeUnix, 9))) AS begun_ns
    FROM otel_metrics_sum
    WHERE TimeUnix >= fromUnixTimestamp64Nano({start_ns:Int64}) AND TimeUnix < fromUnixTimestamp64Nano({end_ns:Int64})
      AND IsMonotonic AND toString(AggregationTemporality) IN ('2', 'Cumulative', 'AGGREGATION_TEMPORALITY_CUMULATIVE')
    GROUP BY service, source, TimeUnix
)
WHERE begun_ns > {start_ns:Int64} AND service != ''
GROUP BY service
