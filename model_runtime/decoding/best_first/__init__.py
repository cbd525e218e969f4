"""Exact and threshold search."""
