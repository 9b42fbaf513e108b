"""Readers of measured sections: every container, and discovery of what a folder holds."""
