"""Report on one section as a self-contained HTML page."""
