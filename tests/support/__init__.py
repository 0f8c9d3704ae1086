"""Small real inputs that several test packages share."""
