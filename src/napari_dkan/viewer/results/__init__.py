"""Results that leave the window and come back to it."""
