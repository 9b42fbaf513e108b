"""Losses, metrics, baselines and fitting; nothing here is imported before it is used."""
