-- Templates in both parts of a comparison: the first {late} windows, and the others.
SELECT
    toString(service) AS name,
    toString(severity) AS severity_text,
    toValidUTF8(template) AS text,
    countIf(late) AS lines_count,
    countIf(NOT late) AS lines_before,
    anyIf(trace_id, late AND trace_id != '') AS example_trace
FROM (SELECT *, win <= {late:UInt16} AS late FROM lines)
WHERE ({service:String} = '' OR toString(service) = {service:String})
    AND ({severe_only:UInt8} = 0 OR severe)
    AND ({contains:String} = '' OR positionCaseInsensitive(template, {contains:String}) > 0)
GROUP BY name, severity_text, text
ORDER BY lines_count + lines_before DESC, name, severity_text, text
LIMIT {rows:UInt64}
