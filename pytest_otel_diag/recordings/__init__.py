"""Recorded incidents on disk: format, reader, writer, importers."""
