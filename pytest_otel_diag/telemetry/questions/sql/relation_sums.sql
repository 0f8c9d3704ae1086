-- Relation `cumulative` of counters: what each series has added up to.
SELECT service, metric, source, series, time_ns, begun_ns, AggregationTemporality AS temporality,
    Value AS amount, toFloat64(0) AS observations
FROM points
WHERE IsMonotonic AND isFinite(Value)
