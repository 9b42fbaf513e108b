"""Model of the quality-control panel: sections, comparison and metrics, without layers or boxes."""
