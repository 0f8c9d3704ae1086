-- Rows of a table as its engine keeps count of them; NULL where it does not (views, Distributed).
SELECT total_rows FROM system.tables WHERE database = {database:String} AND name = {table:String}
