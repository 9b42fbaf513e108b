"""Between a Slide and its napari layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from napari.layers import Image, Layer

from ..errors import SlideError
from ..slide import PixelSize, Slide, open_slide
from ..slide.lazy_level import LazyLevel
from ..slide.pixel_size import PixelSizeMetadata, pixel_size_from_sides, convert_unit_to_um

SLIDE_KEY = "napari-dkan slide"
METADATA_PREFIX = "napari-dkan"  # every key of our layers' metadata begins so
LAYER_SCALE_ORIGIN = "layer's scale"  # origin of a pixel size
MICROMETER_UNITS = ("um", "um")
PIXEL_UNITS = ("pixel", "pixel")
AXIS_LABELS = ("y", "x")


class _ForeignLayer(NamedTuple):
    """What a layer that is not our reader's was taken for, as long as its data is the same."""

    data: Any
    slide: Slide | None


_foreign_layers: WeakKeyDictionary[Layer, _ForeignLayer] = WeakKeyDictionary()


def make_slide_layer(slide: Slide, pixel_size: PixelSize | None) -> tuple[Any, dict, str]:
    """A napari LayerData tuple: the slide as a multiscale RGB layer with its physical scale."""
    mpp = None if pixel_size is None else pixel_size.mpp
    options = {
        "name": slide.name,
        "rgb": True,
        "multiscale": True,
        "scale": (1, 1) if mpp is None else (mpp, mpp),
        "units": PIXEL_UNITS if mpp is None else MICROMETER_UNITS,
        "axis_labels": AXIS_LABELS,
        "metadata": {SLIDE_KEY: (slide, pixel_size)},
    }
    return slide.pyramid(), options, "image"


def slide_from_layer(layer: Layer) -> tuple[Slide, PixelSize | None] | None:
    """The Slide behind a layer: our reader's, the file that another reader opened, or the RGB
    arrays that it shows. None for other layers, and for the pictures that we lay on slides."""
    if not isinstance(layer, Image) or not layer.rgb or layer.ndim != 2:
        return None
    known = layer.metadata.get(SLIDE_KEY)
    if known is not None and _has_slide_pixels(layer, known[0]):
        return known
    if known is None and any(str(key).startswith(METADATA_PREFIX) for key in layer.metadata):
        return None
    adopted = _foreign_layers.get(layer)
    if adopted is None or adopted.data is not layer.data:
        # Other data than the file's was put into the layer: what it shows counts.
        fresh = adopted is None and known is None
        slide = (_open_source_file(layer) if fresh else None) or _slide_from_arrays(layer)
        adopted = _foreign_layers[layer] = _ForeignLayer(layer.data, slide)
    if adopted.slide is None:
        return None
    return adopted.slide, pixel_size_from_layer(layer).pixel_size or adopted.slide.pixel_size


def pixel_size_from_layer(layer: Layer) -> PixelSizeMetadata:
    """The pixel size that a layer's scale says, where its units are lengths."""
    y, x = (
        None if um is None else abs(float(step)) * um
        for step, um in zip(layer.scale[-2:], map(convert_unit_to_um, map(str, layer.units)), strict=True)
    )
    return pixel_size_from_sides(x, y, LAYER_SCALE_ORIGIN)


def sync_slide_name(slide: Slide, layer: Layer) -> None:
    """An image without a file is called like its layer."""
    if not slide.location:
        slide.name = slide.label = layer.name


def _has_slide_pixels(layer: Image, slide: Slide) -> bool:
    """Whether our layer still has the pixels of its slide."""
    first = layer.data[0] if layer.multiscale else layer.data
    return isinstance(first, LazyLevel) and first.slide is slide


def _open_source_file(layer: Image) -> Slide | None:
    path = layer.source.path
    if path is None or not Path(path).exists():
        return None
    try:
        slide = open_slide(path)
    except SlideError:
        return None
    height, width = (layer.data[0] if layer.multiscale else layer.data).shape[:2]
    return slide if (slide.width, slide.height) == (width, height) else None


def _slide_from_arrays(layer: Image) -> Slide | None:
    try:
        slide = Slide.from_arrays(layer.name, layer.data if layer.multiscale else [layer.data])
    except SlideError:
        return None  # an RGB picture that is no slide; napari shows it all the same
    slide.pixel_size_note = pixel_size_from_layer(layer).note
    return slide
