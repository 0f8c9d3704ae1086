"""ClickHouse behind one wrapper: chDB in process or a server, same SQL."""
