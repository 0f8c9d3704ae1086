"""Readers: what evaluates flags and answers what is served."""
