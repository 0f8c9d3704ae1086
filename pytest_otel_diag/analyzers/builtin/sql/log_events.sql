SELECT cityHash64(cityHash64(TraceId), cityHash64(SpanId)) AS id,
    toUnixTimestamp64Nano(toDateTime64(Timestamp, 9)) AS at_ns,
    transform(cityHash64(substring(replaceRegexpAll(Body, {mask:String}, '<*>'), 1, 400)),
        {bodies:Array(UInt64)}, {templates:Array(UInt64)}, toUInt64(0)) AS template
FROM otel_logs
WHERE cityHash64(TraceId) BETWEEN {key_from:UInt64} AND {key_to:UInt64}
  AND SpanId != ''
  AND Timestamp >= fromUnixTimestamp64Nano(arrayMin({window_starts:Array(Int64)}))
  AND Timestamp < fromUnixTimestamp64Nano(arrayMax({window_ends:Array(Int64)}))
  AND template != 0
