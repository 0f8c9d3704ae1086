-- Which services have operations that end in a cited name.
SELECT DISTINCT
    toString(service) AS service_name,
    toString(operation) AS operation_name
FROM spans
WHERE arrayExists(name -> endsWith(lower(toString(operation)), name), {names:Array(String)})
LIMIT 1000
