"""Quality of predictions: comparison with measurements, and reliability without them."""
