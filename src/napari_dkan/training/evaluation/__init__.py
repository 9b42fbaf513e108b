"""Cross-validation and evaluation of checkpoints."""
