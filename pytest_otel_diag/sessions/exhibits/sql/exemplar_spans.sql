-- The spans of one trace (key_from = key_to is its hash), the earliest ones of a very long one.
SELECT span, parent, start_ns, end_ns, service, operation, kind, error
FROM spans
ORDER BY start_ns, span
LIMIT {rows:UInt64}
