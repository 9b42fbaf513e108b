"""Add and remove layers of the layer list."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from napari.layers import Layer


def remove_layers(layers: Any, removed: Iterable[Layer | None]) -> None:
    """Take those of `gone` that are there off the layer list."""
    with _freeze_gc():
        for layer in removed:
            if layer is not None and layer in layers:
                layers.remove(layer)


@contextmanager
def _freeze_gc() -> Iterator[None]:
    """napari walks through all objects there are after every layer that goes, which takes longer
    than the rest; meanwhile it finds none of them, and Python collects later as it always does."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
