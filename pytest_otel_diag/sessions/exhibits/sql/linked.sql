-- Messages between services whose traces are joined by links only: who sent, who took them up.
SELECT
    sent.service AS caller,
    taken.service AS callee,
    count() AS calls
FROM
(
    SELECT ServiceName AS service, arrayJoin(Links.SpanId) AS span
    FROM otel_traces
    WHERE Timestamp >= fromUnixTimestamp64Nano({start:Int64})
      AND Timestamp < fromUnixTimestamp64Nano({end:Int64})
      AND notEmpty(Links.SpanId)
) AS taken
INNER JOIN
(
    SELECT SpanId AS span, any(ServiceName) AS service
    FROM otel_traces
    WHERE SpanId IN
    (
        SELECT arrayJoin(Links.SpanId)
        FROM otel_traces
        WHERE Timestamp >= fromUnixTimestamp64Nano({start:Int64})
          AND Timestamp < fromUnixTimestamp64Nano({end:Int64})
          AND notEmpty(Links.SpanId)
    )
    GROUP BY span
) AS sent ON sent.span = taken.span
WHERE caller != callee
GROUP BY caller, callee
ORDER BY caller, callee
LIMIT 1000
