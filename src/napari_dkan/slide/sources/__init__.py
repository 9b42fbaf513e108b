"""One source per file format: read pixels of a level on demand."""
