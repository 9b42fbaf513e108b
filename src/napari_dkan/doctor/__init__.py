"""Diagnostics for bug reports: versions, devices, readers, folders, display and checkpoints."""
