-- Spans of one service (and operation) in two windows: how many, how many failed, how long they took.
-- Without an operation those that begin a request in the service count: server, consumer and root spans.
WITH
    toUnixTimestamp64Nano(toDateTime64(Timestamp, 9)) AS at_ns,
    at_ns >= {then_start:Int64} AND at_ns < {then_end:Int64} AS later,
    at_ns >= {quiet_start:Int64} AND at_ns < {quiet_end:Int64} AS before,
    StatusCode IN ('Error', 'STATUS_CODE_ERROR') AS failed,
    Duration / 1e6 AS ms
SELECT
    countIf(before) AS n_before,
    countIf(later) AS n_then,
    countIf(failed AND before) AS failed_before,
    countIf(failed AND later) AS failed_then,
    quantileExactIf(0.5)(ms, before) AS median_before,
    quantileExactIf(0.5)(ms, later) AS median_then,
    maxIf(ms, before) AS slowest_before,
    maxIf(ms, later) AS slowest_then,
    countIf(later AND ms > 3 * (
        SELECT max(Duration) / 1e6 FROM otel_traces
        WHERE ServiceName = {service:String}
          AND Timestamp >= fromUnixTimestamp64Nano({quiet_start:Int64})
          AND Timestamp < fromUnixTimestamp64Nano({quiet_end:Int64})
          AND (SpanName = {operation:String}
            OR {operation:String} != '' AND endsWith(SpanName, concat('/', {operation:String}))
            OR {operation:String} = ''
               AND (SpanKind IN ('Server', 'Consumer', 'SPAN_KIND_SERVER', 'SPAN_KIND_CONSUMER')
                    OR ParentSpanId = '')))) AS much_slower,
    if(n_before > 0 AND n_then > 0,
       tupleElement(mannWhitneyUTest('two-sided')(ms, toUInt8(later)), 2), 1) AS p_shift
FROM otel_traces
WHERE ServiceName = {service:String}
  AND Timestamp >= fromUnixTimestamp64Nano({quiet_start:Int64})
  AND Timestamp < fromUnixTimestamp64Nano({then_end:Int64})
  AND (before OR later)
  AND (SpanName = {operation:String}
    OR {operation:String} != '' AND endsWith(SpanName, concat('/', {operation:String}))
    OR {operation:String} = ''
       AND (SpanKind IN ('Server', 'Consumer', 'SPAN_KIND_SERVER', 'SPAN_KIND_CONSUMER') OR ParentSpanId = ''))
