-- Mean of every series in every slot, from the relation points (service, metric, unit, series, at_ns, value).
WITH placed AS (
    SELECT service, metric, series, unit, value,
        transform(roundDown(at_ns, {bounds:Array(Int64)}), {bounds:Array(Int64)}, {slots:Array(Int32)}, -1) AS part
    FROM points WHERE isFinite(value)
)
SELECT service, metric, any(label) AS unit, series, groupArray(slot) AS slots, groupArray(mean) AS means
FROM (
    SELECT service, metric, series, any(unit) AS label, avg(value) AS mean, slot
    FROM placed ARRAY JOIN if(part >= {parts_from:Int32}, [0, part], [part]) AS slot
    WHERE part >= 0 GROUP BY service, metric, series, slot
)
GROUP BY service, metric, series
ORDER BY has(slots, 0) DESC, length(slots) DESC, service, metric, series
LIMIT {keys:UInt32}
