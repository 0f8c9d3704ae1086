"""Feature flags: surfaces that store a flagd document, readers that evaluate it, and controllers."""
