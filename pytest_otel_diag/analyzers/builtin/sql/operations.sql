SELECT cityHash64(service, operation, kind) AS op, service, operation, kind, count() AS n, countIf(parent = 0) AS roots
FROM spans
GROUP BY service, operation, kind
ORDER BY n DESC, op
LIMIT {keys:UInt32}
