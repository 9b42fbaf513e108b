"""Conversion between slides and napari layers, and the registry of layers that belong to a slide.

A slide is shown as a multiscale RGB layer with its scale in micrometres. Layers that belong to a
slide keep their position on it when its scale is corrected.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from napari.layers import Image, Layer, Points, Shapes
from numpy.typing import NDArray

from ...errors import SlideError
from ...slide import PixelSize, Slide, open_slide
from ...slide.pixel_size import PixelSizeMetadata, convert_unit_to_um, pixel_size_from_sides
from ...slide.slide import LazyLevel
from ...spatial.coordinates import swap_xy

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry


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
        for step, um in zip(
            layer.scale[-2:], map(convert_unit_to_um, map(str, layer.units)), strict=True
        )
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


@dataclass(eq=False)
class ViewerSlide:
    """A slide that is open in the viewer.

    Attributes
    ----------
    layer : Image
        The layer that shows it.
    pixel_size : PixelSize or None
        The current pixel size; None while it is unknown.
    tissue : BaseGeometry or None
        The tissue in level-0 px; None until it is detected.
    native_pixel_size : PixelSize or None
        The pixel size that does not come from the user: from the file, the layer or a spot array.
    """

    layer: Image
    slide: Slide
    pixel_size: PixelSize | None
    tissue: BaseGeometry | None = None
    native_pixel_size: PixelSize | None = None

    @property
    def mpp(self) -> float:
        """World units per level-0 pixel: micrometres, or 1 while the pixel size is unknown."""
        return 1.0 if self.pixel_size is None else self.pixel_size.mpp


class SlideLayerRegistry:
    """Layers made for a slide; they are in um from its top left corner, wherever it is shown."""

    def __init__(self) -> None:
        self._slide_of_layer: WeakKeyDictionary[Layer, ViewerSlide] = WeakKeyDictionary()

    def attach(self, slide: ViewerSlide, layer: Layer) -> None:
        """Remember that a layer lies on this slide, whatever other slides are open."""
        self._slide_of_layer[layer] = slide
        _align_to_slide(slide, layer)

    def attach_like(self, layer: Layer, new: Layer) -> None:
        """Remember that a new layer lies on the slide that another one lies on."""
        if layer in self._slide_of_layer:
            self.attach(self._slide_of_layer[layer], new)

    def layers_of(self, slide: ViewerSlide, layers: Iterable[Layer]) -> list[Layer]:
        """Those of the layers that were made for the slide."""
        return [layer for layer in layers if self._slide_of_layer.get(layer) is slide]

    def rescale(
        self, slide: ViewerSlide, size: PixelSize | None, layers: list[Layer], only_slide: bool
    ) -> None:
        """Give the slide another pixel size; what lies on it keeps its place there.

        alone : no other slide is open, so what a person drew by hand lies on this one too.
        """
        before = slide.mpp
        slide.pixel_size = size
        made, world = slide.mpp / before, slide.mpp / float(slide.layer.scale[-1])
        units = PIXEL_UNITS if size is None else MICROMETER_UNITS
        _rescale_layer(slide.layer, (slide.mpp, slide.mpp), world, units)
        for layer in layers:
            if layer in self._slide_of_layer:
                if self._slide_of_layer[layer] is slide:
                    _rescale_layer(layer, np.asarray(layer.scale) * made, made, units)
                    _align_to_slide(slide, layer)
            elif only_slide and isinstance(layer, Shapes | Points) and layer.ndim == 2:
                _rescale_layer(layer, np.asarray(layer.scale) * world, world, units)


def slide_to_world(xy: NDArray[np.float64], slide: ViewerSlide) -> NDArray[np.float64]:
    """(N, 2) places (x, y) in level-0 px as (x, y) in the world."""
    there = slide_to_world_matrix(slide)
    return swap_xy(swap_xy(xy) * slide.mpp @ there[:2, :2].T + there[:2, 2])


def layer_to_slide(
    layer: Layer, data: NDArray[np.floating], slide: ViewerSlide
) -> NDArray[np.float64]:
    """(N, 2) points of another layer as (x, y) level-0 px, through the world."""

    def moved(row: float, column: float) -> NDArray[np.float64]:
        world = layer.data_to_world((row, column))[-2:]
        return np.asarray(slide.layer.world_to_data(world)[-2:])

    # napari moves one point a call; what it does is affine, so three calls tell all of it
    origin = moved(0, 0)
    axes = np.stack([moved(1, 0) - origin, moved(0, 1) - origin])
    return swap_xy(np.asarray(data)[:, -2:] @ axes + origin)


def _rescale_layer(layer: Layer, scale: object, ratio: float, units: tuple[str, str]) -> None:
    layer.scale = scale
    layer.translate = tuple(t * ratio for t in layer.translate)
    layer.units = units
    layer.axis_labels = AXIS_LABELS


def _align_to_slide(slide: ViewerSlide, layer: Layer) -> None:
    """Lay a layer where the slide's layer is: moved, turned or drawn at another scale."""
    there = slide_to_world_matrix(slide)
    if not np.allclose(there, layer.affine.affine_matrix, atol=1e-9):
        layer.affine = there


def slide_to_world_matrix(slide: ViewerSlide) -> NDArray[np.float64]:
    """From um on the slide (y, x) to the world, (3, 3); one where its layer has its scale only."""
    origin, down, across = (
        np.asarray(slide.layer.data_to_world(at)[-2:]) for at in ((0, 0), (1, 0), (0, 1))
    )
    matrix = np.eye(3)
    matrix[:2, 0] = (down - origin) / slide.mpp
    matrix[:2, 1] = (across - origin) / slide.mpp
    matrix[:2, 2] = origin
    return matrix
