"""Features that other programs have made of a slide, used instead of encoding its tiles."""
