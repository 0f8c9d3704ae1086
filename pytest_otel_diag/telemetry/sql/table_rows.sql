-- Rows of tables as their engine keeps count of them; NULL where it does not (views, Distributed).
SELECT name, total_rows FROM system.tables WHERE database = {database:String} AND has({tables:Array(String)}, name)
