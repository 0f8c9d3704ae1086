"""The recording format on disk: manifest, columns, reader and writer."""
