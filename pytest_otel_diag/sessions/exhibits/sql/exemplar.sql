-- The request to show: a span of the first of {services} that has any in the window (of anybody when
-- there are none), failed ones first where {failed_first} is 1, then the slowest. Spans that answer a
-- request come before others: client spans may be streams that are open for hours.
SELECT trace, span, service, operation, duration_ns, error
FROM spans
WHERE empty({services:Array(String)}) OR has({services:Array(String)}, service)
ORDER BY
    indexOf({services:Array(String)}, service),
    kind IN ('Server', 'Consumer') DESC,
    if({failed_first:UInt8} = 1, error, 0) DESC,
    duration_ns DESC,
    trace,
    span
LIMIT 1
