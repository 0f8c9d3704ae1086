-- Spans of one service (and operation) in two windows: how many, how many failed, how long they took.
-- Without an operation those that begin a request in the service count: server, consumer and root spans.
WITH
    toUnixTimestamp64Nano(toDateTime64(Timestamp, 9)) AS at_ns,
    at_ns >= {then_start:Int64} AND at_ns < {then_end:Int64} AS later,
    at_ns >= {quiet_start:Int64} AND at_ns < {quiet_end:Int64} AS before,
    lower(SpanName) AS name,
    lower({operation:String}) AS wanted,
    ${kind} IN ('Server', 'Consumer') OR ParentSpanId = '' AS entry,
    name = wanted OR endsWith(name, wanted)
        AND position('/.:# ', substring(name, length(name) - length(wanted), 1)) > 0 AS called,
    Duration / 1e6 AS ms,
    ${failed} AS failed
SELECT
    countIf(before) AS n_before,
    countIf(later) AS n_then,
    countIf(failed AND before) AS failed_before,
    countIf(failed AND later) AS failed_then,
    quantileExactIf(0.5)(ms, before) AS median_before,
    quantileExactIf(0.5)(ms, later) AS median_then,
    maxIf(ms, before) AS slowest_before,
    maxIf(ms, later) AS slowest_then
FROM otel_traces
WHERE ServiceName = {service:String}
  AND Timestamp >= fromUnixTimestamp64Nano({quiet_start:Int64})
  AND Timestamp < fromUnixTimestamp64Nano({then_end:Int64})
  AND (before OR later)
  AND if(wanted = '', entry, called)
