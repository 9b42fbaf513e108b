"""Regions of interest: drawn, imported from files or painted as labels."""
