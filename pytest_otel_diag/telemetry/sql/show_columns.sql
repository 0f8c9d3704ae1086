-- What SHOW COLUMNS of an analyzer answers.
SELECT name AS field, type
FROM system.columns
WHERE database = currentDatabase() AND table = {table:String}
ORDER BY position
