SELECT
    cityHash64(TraceId) AS trace,
    cityHash64(SpanId) AS span,
    if(ParentSpanId = '', 0, cityHash64(ParentSpanId)) AS parent,
    toUnixTimestamp64Nano(toDateTime64(Timestamp, 9)) AS start_ns,
    start_ns + duration_ns AS end_ns,
    greatest(toInt64(Duration), 0) AS duration_ns,
    ServiceName AS service,
    SpanName AS operation,
    ${kind} AS kind,
    toUInt8(${failed}) AS error,
    coalesce(nullIf(ResourceAttributes['k8s.pod.name'], ''), nullIf(ResourceAttributes['service.instance.id'], ''),
        nullIf(ResourceAttributes['host.name'], ''), '') AS instance,
    toUInt16(arrayFirstIndex((a, b) -> start_ns >= a AND start_ns < b,
        {window_starts:Array(Int64)}, {window_ends:Array(Int64)})) AS win
FROM otel_traces
WHERE trace BETWEEN {key_from:UInt64} AND {key_to:UInt64}
  AND Timestamp >= fromUnixTimestamp64Nano(arrayMin({window_starts:Array(Int64)}))
  AND Timestamp < fromUnixTimestamp64Nano(arrayMax({window_ends:Array(Int64)}))
  AND win > 0
