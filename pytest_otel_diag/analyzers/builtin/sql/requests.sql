-- Requests that enter the system and requests that enter each service, per slot.
WITH placed AS (
    SELECT service, parent = 0 AS root, kind IN ('Server', 'Consumer') AS entry,
        transform(roundDown(start_ns, {bounds:Array(Int64)}), {bounds:Array(Int64)}, {slots:Array(Int32)}, -1) AS part
    FROM spans WHERE root OR entry
)
SELECT service, groupArray(slot) AS slots, groupArray(r) AS roots, groupArray(e) AS entries FROM (
    SELECT service, countIf(root) AS r, countIf(entry) AS e, slot
    FROM placed ARRAY JOIN if(part >= {parts_from:Int32}, [0, part], [part]) AS slot
    WHERE part >= 0 GROUP BY service, slot
)
GROUP BY service ORDER BY sum(e + r) DESC, service LIMIT {keys:UInt32}
