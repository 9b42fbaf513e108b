"""Spots, tile grids, regions and coordinate transforms on a slide."""
