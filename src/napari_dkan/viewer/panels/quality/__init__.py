"""Quality-control panel: measured and predicted expression side by side."""
