-- What telemetry calls the parts of each service: pods, containers, hosts, workloads, rpc services.
SELECT DISTINCT
    ServiceName AS service,
    ResourceAttributes['k8s.pod.name'] AS pod,
    ResourceAttributes['service.instance.id'] AS instance,
    ResourceAttributes['host.name'] AS host,
    ResourceAttributes['container.name'] AS container,
    ResourceAttributes['container.id'] AS container_id,
    ResourceAttributes['k8s.container.name'] AS k8s_container,
    ResourceAttributes['k8s.deployment.name'] AS deployment,
    ResourceAttributes['k8s.statefulset.name'] AS statefulset,
    ResourceAttributes['k8s.daemonset.name'] AS daemonset,
    if(${kind} = 'Server', SpanAttributes['rpc.service'], '') AS rpc_service
FROM otel_traces
WHERE Timestamp >= fromUnixTimestamp64Nano({start_ns:Int64}) AND Timestamp < fromUnixTimestamp64Nano({end_ns:Int64})
  AND ServiceName != ''
LIMIT 20000
