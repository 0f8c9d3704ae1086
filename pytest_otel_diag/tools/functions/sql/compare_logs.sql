-- Log lines in both parts of a comparison: the first {late} windows, and the others.
SELECT
    toString(service) AS name,
    countIf(late) AS lines_count,
    countIf(NOT late) AS lines_before,
    countIf(severe AND late) AS severe_count,
    countIf(severe AND NOT late) AS severe_before
FROM (SELECT *, win <= {late:UInt16} AS late FROM lines)
WHERE empty({services:Array(String)}) OR has({services:Array(String)}, toString(service))
GROUP BY name
ORDER BY name
LIMIT {rows:UInt64}
