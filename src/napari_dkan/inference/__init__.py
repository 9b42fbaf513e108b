"""Prediction: from a region or spots of a slide to expression values."""
