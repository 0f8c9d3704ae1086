"""Recorded incidents on disk: the format, its reader and writer, importers, quiet windows."""
