"""Analyzers: implementations of the diagnosis under test."""
