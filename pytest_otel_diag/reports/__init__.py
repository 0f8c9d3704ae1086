"""Run directory and renderings made from it."""
