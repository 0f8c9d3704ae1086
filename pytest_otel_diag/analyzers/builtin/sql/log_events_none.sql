SELECT toUInt64(0) AS id, toInt64(0) AS at_ns, toUInt64(0) AS template FROM numbers(0)
