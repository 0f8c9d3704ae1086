-- Whether spans took longer or shorter: by chance alone (Mann and Whitney, 1947), and how many by far.
-- Both windows must hold spans.
WITH
    toUnixTimestamp64Nano(toDateTime64(Timestamp, 9)) AS at_ns,
    at_ns >= {then_start:Int64} AND at_ns < {then_end:Int64} AS later,
    at_ns >= {quiet_start:Int64} AND at_ns < {quiet_end:Int64} AS before,
    lower(SpanName) AS name,
    lower({operation:String}) AS wanted,
    ${kind} IN ('Server', 'Consumer') OR ParentSpanId = '' AS entry,
    name = wanted OR endsWith(name, wanted)
        AND position('/.:# ', substring(name, length(name) - length(wanted), 1)) > 0 AS called,
    Duration / 1e6 AS ms
SELECT
    tupleElement(mannWhitneyUTest('two-sided')(ms, toUInt8(later)), 2) AS p,
    countIf(later AND ms > {far_ms:Float64}) AS far
FROM otel_traces
WHERE ServiceName = {service:String}
  AND Timestamp >= fromUnixTimestamp64Nano({quiet_start:Int64})
  AND Timestamp < fromUnixTimestamp64Nano({then_end:Int64})
  AND (before OR later)
  AND if(wanted = '', entry, called)
