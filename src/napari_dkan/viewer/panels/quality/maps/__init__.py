"""Layers of the quality-control panel and their arrangement on the canvas."""
