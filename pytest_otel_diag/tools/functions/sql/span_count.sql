SELECT count() AS number FROM spans
