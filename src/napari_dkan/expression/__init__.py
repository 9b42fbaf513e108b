"""What was measured: ST sections, label scales, panels, gene knowledge."""
