-- Which of some names are those of peers: databases and others that emit no telemetry under the name.
SELECT DISTINCT lower(splitByChar(':', toString(peer))[1]) AS name
FROM otel_traces
ARRAY JOIN arrayMap(key -> SpanAttributes[key], ['peer.service', 'server.address', 'net.peer.name',
    'net.sock.peer.name', 'db.namespace', 'db.name', 'db.system.name', 'db.system',
    'messaging.destination.name', 'messaging.system']) AS peer
WHERE Timestamp >= fromUnixTimestamp64Nano({start_ns:Int64}) AND Timestamp < fromUnixTimestamp64Nano({end_ns:Int64})
    AND has({names:Array(String)}, name)
LIMIT 1000
