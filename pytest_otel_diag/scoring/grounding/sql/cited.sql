-- The spans of cited traces and the cited spans, by trace: which services they touch, in which windows.
SELECT
    indexOf(arrayMap(id -> cityHash64(id), {trace_ids:Array(String)}), trace) AS nth_trace,
    groupUniqArray(100)(toString(service)) AS services,
    groupUniqArray(64)(win) AS windows,
    groupUniqArrayIf(500)(
        (indexOf(arrayMap(id -> cityHash64(id), {span_ids:Array(String)}), span), toString(service), win),
        span IN (SELECT cityHash64(arrayJoin({span_ids:Array(String)})))) AS spans
FROM spans
WHERE trace IN (SELECT cityHash64(arrayJoin({trace_ids:Array(String)})))
    OR span IN (SELECT cityHash64(arrayJoin({span_ids:Array(String)})))
GROUP BY trace
LIMIT 1000
