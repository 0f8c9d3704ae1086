-- 1 if the table has rows visible to this session; its name replaces TABLE_NAME.
SELECT count() AS n FROM (SELECT 1 FROM TABLE_NAME LIMIT 1)
