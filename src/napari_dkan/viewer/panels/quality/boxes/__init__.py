"""Boxes of the quality-control panel, one file each."""
