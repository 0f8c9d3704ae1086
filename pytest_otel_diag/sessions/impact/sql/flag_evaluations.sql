-- Evaluations of a flag as its clients record them on spans and span events, before and since an instant.
-- flagd itself is left out: its own spans say what it answers, not what a service makes of it.
SELECT
    service,
    if(attributes['feature_flag.result.variant'] != '', attributes['feature_flag.result.variant'],
       attributes['feature_flag.variant']) AS variant,
    attributes['feature_flag.result.value'] AS value,
    toUInt8(since) AS late,
    count() AS evaluations
FROM (
    SELECT
        toString(ServiceName) AS service,
        Timestamp >= fromUnixTimestamp64Nano({since_ns:Int64}) AS since,
        arrayJoin(arrayConcat(`Events.Attributes`, [SpanAttributes])) AS attributes
    FROM otel_traces
    WHERE Timestamp >= fromUnixTimestamp64Nano({start_ns:Int64})
        AND Timestamp < fromUnixTimestamp64Nano({end_ns:Int64})
        AND NOT startsWith(ServiceName, 'flagd')
)
WHERE attributes['feature_flag.key'] = {flag:String}
GROUP BY service, variant, value, late
ORDER BY service, variant, value, late
