-- Spans of traces in which one service takes part, and of those they are linked to.
WITH ends AS
(
    SELECT TraceId, groupArrayArray(Links.TraceId) AS linked
    FROM otel_traces
    WHERE ServiceName = {service:String}
      AND Timestamp >= fromUnixTimestamp64Nano({start:Int64})
      AND Timestamp < fromUnixTimestamp64Nano({end:Int64})
    GROUP BY TraceId
    ORDER BY cityHash64(TraceId)
    LIMIT {traces:UInt32}
)
SELECT
    SpanId AS span,
    ParentSpanId AS parent,
    ServiceName AS service,
    Links.SpanId AS links
FROM otel_traces
WHERE TraceId IN (SELECT TraceId FROM ends) OR TraceId IN (SELECT arrayJoin(linked) FROM ends)
LIMIT 200000
