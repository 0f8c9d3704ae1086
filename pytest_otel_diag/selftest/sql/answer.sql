SELECT ServiceName, SpanName, count() AS spans,
    countIf(${failed}) AS failed,
    quantile(0.99)(Duration) / 1e6 AS p99_ms
FROM otel_traces
WHERE ServiceName IN (<services>)
  AND Timestamp >= fromUnixTimestamp64Nano(toInt64(<start>))
  AND Timestamp < fromUnixTimestamp64Nano(toInt64(<end>))
GROUP BY ServiceName, SpanName
ORDER BY failed DESC, p99_ms DESC
LIMIT 20
