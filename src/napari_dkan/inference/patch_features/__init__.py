"""Patches of a slide and their encoder features: positions, reading, stain normalization, encoding, feature files."""
