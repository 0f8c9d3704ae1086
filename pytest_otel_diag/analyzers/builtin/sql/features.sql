-- One row per feature and key, with arrays over slots. Every span occurs twice, as itself and as a child of
-- its parent, and every log line once, as a child of its span; grouping by the id then puts a span beside its
-- children without a join, even with cycles or duplicate ids.
--
-- feature  op       a               b             value (a quantile each slot)
-- 1        span     -               -             self time ms of spans that serve or work
-- 5        span     -               -             self time ms of client spans with a known callee
-- 8        span     -               -             self time ms of client spans without one
-- 9        span     magnitude       -             number of spans with a self time of 4^magnitude µs (of 1 and 8)
-- 2        client   callee service  callee span   client span minus longest server span, ms
-- 7        producer callee service  callee span   start of the consumer after the producer, ms
-- 3        span     child span      child service number of child calls (failed: failed ones)
-- 6        span     template        -             number of log lines
-- 4        span     event           next event    1 start, 2 end, else child span or template
WITH failing AS (
    SELECT cityHash64(trace, parent) FROM spans WHERE error AND parent != 0
),
events AS (
    SELECT cityHash64(trace, span) AS id, toUInt8(0) AS role, start_ns, end_ns,
        cityHash64(service, operation, kind) AS op, cityHash64(service) AS svc,
        toUInt8(multiIf(kind = 'Client', 1, kind = 'Producer', 2, 0)) AS out, error
    FROM spans
    UNION ALL
    SELECT cityHash64(trace, parent) AS id, toUInt8(1) AS role, start_ns, end_ns,
        cityHash64(service, operation, kind) AS op, cityHash64(service) AS svc,
        toUInt8(0) AS out,
        -- an internal span that passes a failure on often ends without a status
        toUInt8(error OR (kind = 'Internal' AND id_of IN failing)) AS error
    FROM (SELECT *, cityHash64(trace, span) AS id_of FROM spans) WHERE parent != 0 AND parent != span
    UNION ALL
    SELECT id, toUInt8(2) AS role, at_ns AS start_ns, at_ns AS end_ns, template AS op, toUInt64(0) AS svc,
        toUInt8(0) AS out, toUInt8(0) AS error
    FROM log_events
),
families AS (
    SELECT
        anyIf((start_ns, end_ns, op, svc, out, error), role = 0) AS me,
        arraySort(groupArrayIf((start_ns, end_ns, role, op, svc, error), role > 0)) AS below,
        countIf(role = 0) AS present
    FROM events GROUP BY id HAVING present > 0
),
features AS (
    SELECT
        me.3 AS op,
        transform(roundDown(me.1, {bounds:Array(Int64)}), {bounds:Array(Int64)}, {slots:Array(Int32)}, -1) AS part,
        arrayFilter(c -> c.3 = 1, below) AS kids,
        arrayFilter(c -> c.5 != me.4, kids) AS far,
        me.2 - me.1 AS took,
        took - if(empty(kids), 0, toInt64(arrayReduce('intervalLengthSum',
            arrayMap(c -> least(greatest(c.1, me.1), me.2), kids),
            arrayMap(c -> greatest(least(c.2, me.2), me.1), kids)))) AS self,
        me.6 = 1 AND NOT arrayExists(c -> c.6 = 1, kids) AS origin,
        arrayConcat([toUInt64(1)], arrayCompact(arrayMap(c -> c.4, below)), [toUInt64(2)]) AS flow,
        arrayJoin(arrayConcat(
            [(toUInt8(multiIf(me.5 != 1, 1, notEmpty(far), 5, 8)), toUInt64(0), toUInt64(0),
              self / 1e6, took / 1e6, me.6, toUInt8(origin), toUInt8(origin AND me.5 = 1 AND empty(far)))],
            if(me.5 = 1 AND notEmpty(far), [], [(toUInt8(9),
              toUInt64(floor(log2(1 + greatest(self, 0) / 1e3) / 2)), toUInt64(0), 0., 0., toUInt8(0), toUInt8(0), toUInt8(0))]),
            if(me.5 = 1 AND notEmpty(far), [(toUInt8(2), far[1].5, far[1].4,
              (took - arrayMax(c -> c.2 - c.1, far)) / 1e6, 0., toUInt8(0), toUInt8(0), toUInt8(0))], []),
            if(me.5 = 2 AND notEmpty(far), [(toUInt8(7), far[1].5, far[1].4,
              greatest(far[1].1 - me.1, 0) / 1e6, 0., toUInt8(0), toUInt8(0), toUInt8(0))], []),
            arrayMap(c -> (toUInt8(if(c.3 = 1, 3, 6)), c.4, c.5, 0., 0., c.6, toUInt8(0), toUInt8(0)), below),
            if(empty(below), [], arrayMap((x, y) -> (toUInt8(4), x, y, 0., 0., toUInt8(0), toUInt8(0), toUInt8(0)),
              arrayPopBack(flow), arrayPopFront(flow)))
        )) AS f
    FROM families WHERE part >= 0
)
SELECT feature, op, a, b,
    groupArray(slot) AS slots, groupArray(n) AS counts,
    groupArray(q[1]) AS low, groupArray(q[2]) AS mid, groupArray(q[3]) AS high,
    groupArray(w[1]) AS took_mid, groupArray(w[2]) AS took_high,
    groupArray(failed) AS failed, groupArray(origins) AS origins, groupArray(lonely) AS lonely
FROM (
    SELECT f.1 AS feature, op, f.2 AS a, f.3 AS b, slot, count() AS n,
        quantilesExactIf(0.25, 0.5, 0.75)(f.4, f.1 IN (1, 2, 5, 7, 8)) AS q,
        quantilesExactIf(0.5, 0.95)(f.5, f.1 IN (1, 5, 8)) AS w,
        sum(f.6) AS failed, sum(f.7) AS origins, sum(f.8) AS lonely
    FROM features ARRAY JOIN if(part >= {parts_from:Int32}, [0, part], [part]) AS slot
    GROUP BY feature, op, a, b, slot
)
GROUP BY feature, op, a, b
ORDER BY sum(n) DESC, feature, op, a, b
LIMIT {keys:UInt32}
