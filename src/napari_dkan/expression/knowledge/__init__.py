"""What is known about genes: which one a name means, and its description."""
