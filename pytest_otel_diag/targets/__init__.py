"""Systems under fault: replay of recordings, the simulated shop."""
