"""Settings with their sources: command line, environment, ini, default."""
