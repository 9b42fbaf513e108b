"""Measured expression: sections, label scales, gene panels and gene descriptions."""
