-- Which of some names are those of measured containers and deployments.
SELECT DISTINCT lower(part) AS name
FROM metric_table
ARRAY JOIN [Attributes['container.name'], ResourceAttributes['container.name'],
    ResourceAttributes['k8s.container.name'], ResourceAttributes['k8s.deployment.name']] AS part
WHERE TimeUnix >= fromUnixTimestamp64Nano({start_ns:Int64}) AND TimeUnix < fromUnixTimestamp64Nano({end_ns:Int64})
    AND has({names:Array(String)}, name)
LIMIT 1000
