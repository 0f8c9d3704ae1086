-- Whom a metric is about: its service, else the workload that a receiver of the collector names instead.
if(ServiceName != '', ServiceName, arrayFirst(x -> x != '', [ResourceAttributes['k8s.deployment.name'],
    ResourceAttributes['k8s.container.name'], ResourceAttributes['container.name'], '']))
