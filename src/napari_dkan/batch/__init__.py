"""Many slides without a window: what is done with one, and with two hundred of them overnight."""
