"""The built-in analyzer: no training, no knowledge of any system."""
