"""What was computed on a slide, kept on disk for the next visit; see `store.open_store`."""
