"""A run: its directory, manifest, document and the runner that drives sessions."""
