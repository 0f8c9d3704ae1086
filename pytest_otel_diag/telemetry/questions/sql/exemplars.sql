-- The slowest and the failing spans of every operation: (duration_ns, trace, span, start_ns, error).
SELECT
    service,
    operation,
    groupArraySorted({each:UInt64})((-duration_ns, trace, span, start_ns, error)) AS slowest,
    groupArraySortedIf({each:UInt64})((-duration_ns, trace, span, start_ns, error), error = 1) AS failing
FROM spans
WHERE ({service:String} = '' OR service = {service:String})
GROUP BY service, operation
ORDER BY service, operation
LIMIT {rows:UInt64}
