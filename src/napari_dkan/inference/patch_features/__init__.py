"""Patches of a slide and their features: positions, reading, encoding and feature files."""
