SELECT toUnixTimestamp64Nano(toDateTime64(max(TimeUnix), 9)) AS newest_ns, count() AS rows
FROM {table:Identifier}
WHERE TimeUnix <= fromUnixTimestamp64Nano({until_ns:Int64})
