"""What is known of the demo's flags, release by release, as data."""
