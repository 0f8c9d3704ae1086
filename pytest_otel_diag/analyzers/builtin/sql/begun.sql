-- When processes began within the incident, as their cumulative series say. A series that is new may be of an
-- old process: the oldest one of a source (instance, receiver) tells.
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
