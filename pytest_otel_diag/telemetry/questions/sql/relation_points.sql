-- Relation `points`: data points of a metric table that belong to some services, idle and free shares
-- left out (busy and idle time add up to a constant). service: the one that emits the point, else the one
-- that its attributes name as the measured container, deployment or consumer group.
SELECT
    multiIf(
        has({services:Array(String)}, toString(ServiceName)), toString(ServiceName),
        arrayFirst(name -> name != '' AND has({services:Array(String)}, name), [
            Attributes['group'], Attributes['messaging.consumer.group.name'], Attributes['consumer_group'],
            Attributes['container.name'], ResourceAttributes['container.name'],
            ResourceAttributes['k8s.container.name'], ResourceAttributes['k8s.deployment.name']])
    ) AS service,
    toString(MetricName) AS metric,
    toUnixTimestamp64Nano(toDateTime64(TimeUnix, 9)) AS time_ns,
    toUnixTimestamp64Nano(toDateTime64(StartTimeUnix, 9)) AS begun_ns,
    cityHash64(ResourceAttributes, toString(ServiceName)) AS source,
    cityHash64(ResourceAttributes, toString(ServiceName), ScopeName, Attributes) AS series,
    *
FROM {table:Identifier}
WHERE TimeUnix >= fromUnixTimestamp64Nano(arrayMin({window_starts:Array(Int64)}))
    AND TimeUnix < fromUnixTimestamp64Nano(arrayMax({window_ends:Array(Int64)}))
    AND service != ''
    AND bitAnd(Flags, 1) = 0
    AND NOT hasAny(mapValues(Attributes), ['idle', 'free', 'available'])
