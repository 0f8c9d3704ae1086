-- Requests that enter the system and requests that enter each service, per slot.
SELECT service, groupArray(slot) AS slots, groupArray(r) AS roots, groupArray(e) AS entries FROM (
    SELECT service, countIf(parent = 0) AS r, countIf(kind IN ('Server', 'Consumer')) AS e,
        transform(roundDown(start_ns, {bounds:Array(Int64)}), {bounds:Array(Int64)}, {slots:Array(Int32)}, -1) AS slot
    FROM spans WHERE slot >= 0 AND (parent = 0 OR kind IN ('Server', 'Consumer'))
    GROUP BY service, slot
)
GROUP BY service ORDER BY sum(r + e) DESC, service LIMIT {keys:UInt32}
