"""Results: save, export, draw as a figure and reopen."""
