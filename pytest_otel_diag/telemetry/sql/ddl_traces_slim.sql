-- Trace-ordered companion with integer ids: 24 bytes a span; the five-minute step in front lets a
-- window read its own part only. Shard by trace where there are shards.
CREATE TABLE IF NOT EXISTS ${database}.otel_traces_slim${on_cluster}
(
    trace UInt64 CODEC(ZSTD(1)),
    span UInt64 CODEC(NONE),
    parent UInt64 CODEC(NONE),
    start_ns Int64 CODEC(Delta(8), ZSTD(1)),
    duration_ns Int64 CODEC(T64, ZSTD(1)),
    service LowCardinality(String) CODEC(ZSTD(1)),
    operation LowCardinality(String) CODEC(ZSTD(1)),
    kind LowCardinality(String) CODEC(ZSTD(1)),
    error UInt8 CODEC(ZSTD(1)),
    instance LowCardinality(String) CODEC(ZSTD(1)),
    INDEX start_range start_ns TYPE minmax GRANULARITY 1
)
ENGINE = ${engine}
PARTITION BY toDate(fromUnixTimestamp64Nano(start_ns))
ORDER BY (intDiv(start_ns, 300000000000), trace, start_ns)
${ttl_traces_slim}
