CREATE MATERIALIZED VIEW IF NOT EXISTS ${database}.otel_traces_slim_mv${on_cluster} TO ${database}.otel_traces_slim
AS SELECT
    cityHash64(TraceId) AS trace,
    cityHash64(SpanId) AS span,
    if(ParentSpanId = '', 0, cityHash64(ParentSpanId)) AS parent,
    toUnixTimestamp64Nano(toDateTime64(Timestamp, 9)) AS start_ns,
    greatest(toInt64(Duration), 0) AS duration_ns,
    ServiceName AS service,
    SpanName AS operation,
    ${kind} AS kind,
    toUInt8(${failed}) AS error,
    coalesce(nullIf(ResourceAttributes['k8s.pod.name'], ''), nullIf(ResourceAttributes['service.instance.id'], ''),
        nullIf(ResourceAttributes['host.name'], ''), '') AS instance
FROM ${database}.otel_traces
