"""Caches of features and tokens, in memory and on disk."""
