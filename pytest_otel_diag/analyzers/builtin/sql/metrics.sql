-- Mean of every series in every slot, from the relation points (service, metric, unit, series, at_ns, value,
-- hits, seconds, whole); of series that count events also how many there were, in how many seconds (else NaN).
WITH placed AS (
    SELECT service, metric, series, unit, value, hits, seconds, whole,
        transform(roundDown(at_ns, {bounds:Array(Int64)}), {bounds:Array(Int64)}, {slots:Array(Int32)}, -1) AS part
    FROM points WHERE isFinite(value)
)
SELECT service, metric, any(label) AS unit, series, groupArray(slot) AS slots, groupArray(mean) AS means,
    groupArray(events) AS hits, groupArray(exposure) AS seconds, min(integral) AS whole
FROM (
    SELECT service, metric, series, any(unit) AS label, avg(value) AS mean, slot,
        min(whole) AS integral, sum(placed.hits) AS events, sum(placed.seconds) AS exposure
    FROM placed ARRAY JOIN if(part >= {parts_from:Int32}, [0, part], [part]) AS slot
    WHERE part >= 0 GROUP BY service, metric, series, slot
)
GROUP BY service, metric, series
ORDER BY has(slots, 0) DESC, length(slots) DESC, service, metric, series
LIMIT {keys:UInt32}
