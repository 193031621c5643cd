"""Compute tests: reads their manifests, builds their runner, runs one on a machine, and judges what it said."""
