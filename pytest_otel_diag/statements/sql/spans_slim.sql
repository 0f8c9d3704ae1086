SELECT
    trace, span, parent, start_ns, start_ns + duration_ns AS end_ns, duration_ns,
    service, operation, kind, error, instance,
    toUInt16(arrayFirstIndex((a, b) -> start_ns >= a AND start_ns < b,
        {window_starts:Array(Int64)}, {window_ends:Array(Int64)})) AS win
FROM otel_traces_slim
WHERE trace BETWEEN {key_from:UInt64} AND {key_to:UInt64}
  AND start_ns >= arrayMin({window_starts:Array(Int64)})
  AND start_ns < arrayMax({window_ends:Array(Int64)})
  AND win > 0
