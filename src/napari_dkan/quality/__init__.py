"""How good a prediction is: measured beside predicted, and how far to trust it without."""
