"""``python -m napari_dkan``."""

from .cli import main

main()
