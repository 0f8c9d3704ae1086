-- Histograms: observations a second, and what they add up to a second; averaged over a bucket.
SELECT service, metric, each.1 AS kind, bucket, avg(each.2) AS value
FROM
(
    SELECT service, metric, bucket, arrayJoin([('count_rate', count_rate), ('sum_rate', amount_rate)]) AS each
    FROM rates
)
GROUP BY service, metric, kind, bucket
ORDER BY service, metric, kind, bucket
