"""Between a Slide and its napari layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from napari.layers import Image, Layer

from ..errors import SlideError
from ..slide import PixelSize, Slide, open_slide

KEY = "napari-dkan slide"
UNITS = ("um", "um")
PIXELS = ("pixel", "pixel")
AXES = ("y", "x")

# layers that other readers opened, and the slide their file is (None: not one of ours)
_adopted: WeakKeyDictionary[Layer, Slide | None] = WeakKeyDictionary()


def slide_layer_data(slide: Slide, pixel_size: PixelSize | None) -> tuple[Any, dict, str]:
    """A napari LayerData tuple: the slide as a multiscale RGB layer with its physical scale."""
    mpp = None if pixel_size is None else pixel_size.mpp
    options = {
        "name": slide.name,
        "rgb": True,
        "multiscale": True,
        "scale": (1, 1) if mpp is None else (mpp, mpp),
        "units": PIXELS if mpp is None else UNITS,
        "axis_labels": AXES,
        "metadata": {KEY: (slide, pixel_size)},
    }
    return slide.pyramid(), options, "image"


def slide_of(layer: Layer) -> tuple[Slide, PixelSize | None] | None:
    """The Slide behind a layer: our reader's, or the file that another reader opened."""
    if not isinstance(layer, Image) or not layer.rgb:
        return None
    known = layer.metadata.get(KEY)
    if known is not None:
        return known
    if layer not in _adopted:
        _adopted[layer] = _open_source(layer)
    slide = _adopted[layer]
    return None if slide is None else (slide, slide.pixel_size)


def _open_source(layer: Image) -> Slide | None:
    path = layer.source.path
    if path is None or not Path(path).exists():
        return None
    try:
        slide = open_slide(path)
    except SlideError:
        return None  # an RGB picture that is no slide; napari shows it all the same
    height, width = (layer.data[0] if layer.multiscale else layer.data).shape[:2]
    return slide if (slide.width, slide.height) == (width, height) else None
