"""Systems under fault: replay of recordings."""
