-- Mean of every series in every slot, from the relation points (service, metric, unit, series, at_ns, value).
SELECT service, metric, any(unit) AS unit, series, groupArray(slot) AS slots, groupArray(mean) AS means
FROM (
    SELECT service, metric, series, any(unit) AS unit, avg(value) AS mean,
        transform(roundDown(at_ns, {bounds:Array(Int64)}), {bounds:Array(Int64)}, {slots:Array(Int32)}, -1) AS slot
    FROM points WHERE isFinite(value) AND slot >= 0
    GROUP BY service, metric, series, slot
)
GROUP BY service, metric, series
ORDER BY has(slots, 0) DESC, length(slots) DESC, service, metric, series
LIMIT {keys:UInt32}
