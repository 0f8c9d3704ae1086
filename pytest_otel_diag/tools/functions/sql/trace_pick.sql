-- The trace with the slowest span of a service or operation; client spans last, which may be open streams.
SELECT TraceId AS trace_id
FROM otel_traces
WHERE Timestamp >= fromUnixTimestamp64Nano(arrayMin({window_starts:Array(Int64)}))
    AND Timestamp < fromUnixTimestamp64Nano(arrayMax({window_ends:Array(Int64)}))
    AND arrayExists((a, b) -> Timestamp >= fromUnixTimestamp64Nano(a) AND Timestamp < fromUnixTimestamp64Nano(b),
        {window_starts:Array(Int64)}, {window_ends:Array(Int64)})
    AND ({service:String} = '' OR ServiceName = {service:String})
    AND ({operation:String} = '' OR SpanName = {operation:String})
    AND ({failed_only:UInt8} = 0 OR ${failed})
ORDER BY ${kind} IN ('Server', 'Consumer') DESC, Duration DESC, TraceId
LIMIT 1
