SELECT
    'TABLE_NAME' AS name,
    countIf(time_ns >= {window_starts:Array(Int64)}[1] AND time_ns < {window_ends:Array(Int64)}[1]) AS late,
    countIf(time_ns >= {window_starts:Array(Int64)}[-1] AND time_ns < {window_ends:Array(Int64)}[-1]) AS early
FROM (SELECT TIME_NS AS time_ns FROM TABLE_NAME WHERE WITHIN)
