"""Analyzers: the diagnoses that a test puts under test."""
