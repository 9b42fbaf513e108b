"""Quality control in the window: measured beside predicted, and what to believe."""
