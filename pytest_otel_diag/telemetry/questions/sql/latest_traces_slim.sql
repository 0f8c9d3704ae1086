SELECT max(start_ns + duration_ns) AS newest_ns, count() AS rows
FROM otel_traces_slim
WHERE start_ns + duration_ns <= {until_ns:Int64}
