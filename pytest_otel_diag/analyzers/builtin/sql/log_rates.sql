-- Log lines that belong to no span, per service and template.
WITH placed AS (
    SELECT ServiceName AS service,
        transform(cityHash64(substring(replaceRegexpAll(Body, {mask:String}, '<*>'), 1, 400)),
            {bodies:Array(UInt64)}, {templates:Array(UInt64)}, toUInt64(0)) AS template,
        transform(roundDown(toUnixTimestamp64Nano(toDateTime64(Timestamp, 9)), {bounds:Array(Int64)}),
            {bounds:Array(Int64)}, {slots:Array(Int32)}, -1) AS part
    FROM otel_logs
    WHERE Timestamp >= fromUnixTimestamp64Nano(arrayMin({window_starts:Array(Int64)}))
      AND Timestamp < fromUnixTimestamp64Nano(arrayMax({window_ends:Array(Int64)}))
      AND SpanId = ''
)
SELECT service, template, groupArray(slot) AS slots, groupArray(n) AS counts FROM (
    SELECT service, template, slot, count() AS n
    FROM placed ARRAY JOIN if(part >= {parts_from:Int32}, [0, part], [part]) AS slot
    WHERE part >= 0 AND template != 0 GROUP BY service, template, slot
)
GROUP BY service, template
ORDER BY sum(n) DESC, service, template
LIMIT {keys:UInt32}
