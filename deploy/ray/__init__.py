"""Replicas with Ray Serve: the same app, one engine a replica. docs/ray.md says how to run it."""
