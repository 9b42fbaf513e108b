"""Prediction on one or many slides without a window."""
