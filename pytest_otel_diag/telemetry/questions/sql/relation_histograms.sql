-- Relation `cumulative` of histograms: what the observations of each series add up to, and how many they are.
SELECT service, metric, source, series, time_ns, begun_ns, AggregationTemporality AS temporality,
    Sum AS amount, toFloat64(Count) AS observations
FROM points
WHERE isFinite(Sum)
