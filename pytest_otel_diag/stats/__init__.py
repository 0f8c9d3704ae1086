"""Small exact statistics that several packages share. No I/O."""
