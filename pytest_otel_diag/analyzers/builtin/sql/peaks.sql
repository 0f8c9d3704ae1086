-- Levels of these services one by one in the incident, with the highest of quiet time; the table's name stands
-- for TABLE_NAME, what its levels are for LEVELS.
SELECT OWNER AS service, MetricName AS metric, any(MetricUnit) AS unit,
    maxIf(toFloat64(Value), NOT now) AS usual, countIf(NOT now) AS quiet,
    arraySort(groupArrayIf((toUnixTimestamp64Nano(toDateTime64(TimeUnix, 9)) AS at_ns, toFloat64(Value)),
        (at_ns >= {start_ns:Int64} AND at_ns < {end_ns:Int64}) AS now)) AS points
FROM TABLE_NAME
WHERE service IN {services:Array(String)} AND isFinite(Value) AND LEVELS
  AND arrayExists((a, b) -> at_ns >= a AND at_ns < b, {window_starts:Array(Int64)}, {window_ends:Array(Int64)})
GROUP BY service, metric, toString(Attributes)
HAVING quiet > 0 AND length(points) > 0
