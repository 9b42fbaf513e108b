"""Slides that another reader opened, napari's own for example: whole in memory, in pixels."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakKeyDictionary

from napari.layers import Image, Layer

from ...errors import SlideError
from ...slide import Slide, open_slide
from .slide_layer import METADATA_PREFIX, adopted_slide
from .viewer_settings import PLUGIN_NAME

_RGB_CHANNELS = (3, 4)

_opened_slides: WeakKeyDictionary[Layer, Slide | None] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class ForeignSlide:
    """A slide file that is shown by layers of another reader.

    Attributes
    ----------
    slide : Slide
        The same file as a pyramid.
    layers : tuple of Image
        What the other reader made of it: one RGB layer, one with an axis of colours, or one
        layer per colour.
    """

    slide: Slide
    layers: tuple[Image, ...]


def find_foreign_slides(layers: Iterable[Layer]) -> list[ForeignSlide]:
    """Find the slide files among layers of other readers."""
    by_path: dict[str, list[Image]] = {}
    for layer in layers:
        path = layer.source.path
        if (
            isinstance(layer, Image)
            and path is not None
            and layer.source.reader_plugin != PLUGIN_NAME
            and not any(str(key).startswith(METADATA_PREFIX) for key in layer.metadata)
        ):
            by_path.setdefault(str(path), []).append(layer)
    found = []
    for path, images in by_path.items():
        slide = _open_once(path, images[0])
        if slide is not None and _shows(images, slide):
            found.append(ForeignSlide(slide, tuple(images)))
    return found


def _open_once(path: str, layer: Image) -> Slide | None:
    """Open the file of a layer; the slide of the session if it has adopted the layer."""
    adopted = adopted_slide(layer)
    if adopted is not None and adopted.path is not None:
        return adopted
    if layer not in _opened_slides:
        _opened_slides[layer] = None
        if Path(path).exists():
            with suppress(SlideError):  # an image, but not a slide
                _opened_slides[layer] = open_slide(path)
    return _opened_slides[layer]


def _shows(images: list[Image], slide: Slide) -> bool:
    """Whether layers show the pixels of the slide in colours, not for example a mask of it."""
    size = [slide.height, slide.width]
    shapes = [list((i.data[0] if i.multiscale else i.data).shape) for i in images]
    if len(images) > 1:
        return len(images) in _RGB_CHANNELS and all(shape == size for shape in shapes)
    (image,), (shape,) = images, shapes
    if image.rgb:
        adopted = adopted_slide(image)
        # Of the same size, but not the file: somebody has changed the pixels.
        return adopted is None or adopted.path is not None or shape[:2] != size
    return len(shape) == 3 and shape[1:] == size and shape[0] in _RGB_CHANNELS
