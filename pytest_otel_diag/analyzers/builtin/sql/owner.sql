-- The service that a metric describes, else the workload that a receiver of the collector names.
if(ServiceName != '', ServiceName, arrayFirst(x -> x != '', [ResourceAttributes['k8s.deployment.name'],
    ResourceAttributes['k8s.container.name'], ResourceAttributes['container.name'], '']))
