-- What SHOW TABLES of an analyzer answers: the tables of the session, without those that steer its views.
SELECT name
FROM system.tables
WHERE database = currentDatabase() AND NOT startsWith(name, '_')
ORDER BY name
