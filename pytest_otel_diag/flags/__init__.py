"""Flag controllers: read, change, witness and restore feature flags."""
