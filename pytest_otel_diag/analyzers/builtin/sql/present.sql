-- 1 when the table holds anything that this session can see; its name stands for TABLE_NAME.
SELECT count() AS n FROM (SELECT 1 FROM TABLE_NAME LIMIT 1)
