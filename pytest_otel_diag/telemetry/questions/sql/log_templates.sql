-- Log templates by frequency.
SELECT win, service, severity, template, count() AS lines, anyIf(trace_id, trace_id != '') AS trace_id
FROM lines
GROUP BY win, service, severity, template
ORDER BY win, lines DESC, service, severity, template
LIMIT {rows:UInt64}
