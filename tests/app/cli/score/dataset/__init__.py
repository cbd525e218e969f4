"""Datasets on a cluster."""
