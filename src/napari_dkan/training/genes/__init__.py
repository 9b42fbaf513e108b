"""Gene descriptions and their text features."""
