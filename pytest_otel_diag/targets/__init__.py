"""Targets, the systems under fault: live demos, replayed recordings, the simulated shop."""
