"""Readers of the folder and file layouts that measured sections come in."""
