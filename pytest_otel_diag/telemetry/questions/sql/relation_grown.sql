-- Relation `grown`: what cumulative series grew by a second since their point before, which must lie in the
-- window too. A series that fell or whose start moved began anew and grew by all it holds. Delta points
-- (temporality 1) say themselves since when they count.
SELECT
    service, metric, source, time_ns,
    multiIf(temporality = 1, begun_ns, begun_ns > at_before, begun_ns, at_before) AS since_ns,
    temporality = 1 OR begun_ns > at_before OR amount < amount_before OR observations < observations_before AS whole,
    (amount - if(whole, 0, amount_before)) * 1e9 / (time_ns - since_ns) AS amount_rate,
    (observations - if(whole, 0, observations_before)) * 1e9 / (time_ns - since_ns) AS count_rate
FROM
(
    SELECT
        *,
        row_number() OVER earlier AS nth,
        lagInFrame(amount) OVER earlier AS amount_before,
        lagInFrame(observations) OVER earlier AS observations_before,
        lagInFrame(time_ns) OVER earlier AS at_before
    FROM cumulative
    WINDOW earlier AS (PARTITION BY service, metric, series ORDER BY time_ns
        ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)
)
WHERE (nth > 1 OR temporality = 1) AND time_ns > since_ns
    AND (temporality != 1 OR begun_ns >= arrayMin({window_starts:Array(Int64)}))
