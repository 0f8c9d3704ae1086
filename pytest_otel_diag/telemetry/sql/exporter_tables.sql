-- Tables of the exporter's layout in every database, with what their engine was given.
SELECT database, name, engine, engine_full
FROM system.tables
WHERE startsWith(name, 'otel_') AND NOT endsWith(name, '_mv')
    AND database NOT IN ('system', 'information_schema', 'INFORMATION_SCHEMA', '_local')
ORDER BY database, name
