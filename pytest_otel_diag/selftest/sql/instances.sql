-- Instances of one service that sent spans in a window, and those that did at any time before it.
WITH
    toUnixTimestamp64Nano(toDateTime64(Timestamp, 9)) AS at_ns,
    at_ns >= {then_start:Int64} AND at_ns < {then_end:Int64} AS later,
    at_ns >= {quiet_start:Int64} AND at_ns < {then_start:Int64} AS before
SELECT
    coalesce(nullIf(ResourceAttributes['service.instance.id'], ''),
        nullIf(ResourceAttributes['k8s.pod.name'], ''), toString(cityHash64(ResourceAttributes))) AS instance,
    countIf(before) AS n_before,
    countIf(later) AS n_then
FROM otel_traces
WHERE ServiceName = {service:String}
  AND Timestamp >= fromUnixTimestamp64Nano({quiet_start:Int64})
  AND Timestamp < fromUnixTimestamp64Nano({then_end:Int64})
  AND (before OR later)
GROUP BY instance
ORDER BY instance
LIMIT 1000
