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
from ...slide.lazy_level import LazyLevel
from ...slide.pixel_size import PixelSizeMetadata, convert_unit_to_um, pixel_size_from_sides
from ...spatial.coordinates import swap_xy

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry


SLIDE_KEY = "napari-dkan slide"
METADATA_PREFIX = "napari-dkan"  # of every key of the layers' metadata
LAYER_SCALE_ORIGIN = "layer's scale"  # origin of a pixel size
MICROMETER_UNITS = ("um", "um")
PIXEL_UNITS = ("pixel", "pixel")
AXIS_LABELS = ("y", "x")
ON_SLIDE_KEY = "lies on slide"  # of a layer's metadata: the Slide that it was opened with


class _ForeignLayer(NamedTuple):
    """The slide of a layer from another reader; valid while the layer has this data."""

    data: Any
    slide: Slide | None


_foreign_layers: WeakKeyDictionary[Layer, _ForeignLayer] = WeakKeyDictionary()


def make_slide_layer(slide: Slide, pixel_size: PixelSize | None) -> tuple[Any, dict[str, Any], str]:
    """Return a napari LayerData tuple of a multiscale RGB layer in micrometres."""
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


def make_layer_like(old: Image, slide: Slide, pixel_size: PixelSize | None) -> Image:
    """Make the layer of a slide that takes the place, the name and the look of another one.

    The scale stays that of the other layer, until the slide is drawn at its pixel size.
    """
    pixels, options, _ = make_slide_layer(slide, pixel_size)
    shown = (old.data[0] if old.multiscale else old.data).shape
    width = shown[1] if old.rgb else shown[-1]
    scale = np.asarray(old.scale)[-2:] * (width / slide.width)
    affine = old.affine.affine_matrix
    axes = [*range(old.ndim - 2, old.ndim), old.ndim]  # of the last two axes
    options |= {
        "name": old.name,
        "scale": scale,
        "units": tuple(map(str, old.units[-2:])),
        "translate": np.asarray(old.translate)[-2:],
        "rotate": np.asarray(old.rotate)[-2:, -2:],
        "affine": affine[np.ix_(axes, axes)],
        "opacity": old.opacity if old.rgb else 1.0,
        "visible": old.visible,
    }
    return Image(pixels, **options)


def slide_from_layer(layer: Layer) -> tuple[Slide, PixelSize | None] | None:
    """Return the slide of a layer and its pixel size.

    The slide is that of the plugin's reader, of the file that another reader opened, or of the
    RGB arrays of the layer. None for other layers and for images that the plugin adds to slides.
    """
    if not isinstance(layer, Image) or not layer.rgb or layer.ndim != 2:
        return None
    own_slide: tuple[Slide, PixelSize | None] | None = layer.metadata.get(SLIDE_KEY)
    if own_slide is not None and _has_slide_pixels(layer, own_slide[0]):
        return own_slide
    if own_slide is None and any(str(key).startswith(METADATA_PREFIX) for key in layer.metadata):
        return None
    adopted = _foreign_layers.get(layer)
    if adopted is None or adopted.data is not layer.data:
        # If the data of the layer was replaced, it is no longer that of its file.
        fresh = adopted is None and own_slide is None
        slide = (_open_source_file(layer) if fresh else None) or _slide_from_arrays(layer)
        adopted = _foreign_layers[layer] = _ForeignLayer(layer.data, slide)
    if adopted.slide is None:
        return None
    return adopted.slide, pixel_size_from_layer(layer).pixel_size or adopted.slide.pixel_size


def adopted_slide(layer: Layer) -> Slide | None:
    """Return the slide that `slide_from_layer` made of a layer of another reader."""
    adopted = _foreign_layers.get(layer)
    return None if adopted is None else adopted.slide


def pixel_size_from_layer(layer: Layer) -> PixelSizeMetadata:
    """Return the pixel size from the scale of a layer if its units are lengths."""
    y, x = (
        None if um is None else abs(float(step)) * um
        for step, um in zip(
            layer.scale[-2:], map(convert_unit_to_um, map(str, layer.units)), strict=True
        )
    )
    return pixel_size_from_sides(x, y, LAYER_SCALE_ORIGIN)


def sync_slide_name(slide: Slide, layer: Layer) -> None:
    """Give a slide without a file the name of its layer."""
    if not slide.location:
        slide.name = slide.label = layer.name


def _has_slide_pixels(layer: Image, slide: Slide) -> bool:
    """Whether the layer still shows the pixels of its slide."""
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
        return None  # an RGB image that is not a slide
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
    """The layers that belong to a slide; their scale is in um from its top left corner."""

    def __init__(self) -> None:
        self._slide_of_layer: WeakKeyDictionary[Layer, ViewerSlide] = WeakKeyDictionary()

    def attach(self, slide: ViewerSlide, layer: Layer) -> None:
        """Remember that a layer lies on this slide, whatever other slides are open."""
        self._slide_of_layer[layer] = slide
        _align_to_slide(slide, layer)

    def detach(self, layers: Iterable[Layer]) -> None:
        """Forget to which slide layers belong; they stay where they are."""
        for layer in layers:
            self._slide_of_layer.pop(layer, None)

    def attach_like(self, layer: Layer, new: Layer) -> None:
        """Record that a new layer belongs to the slide of another layer."""
        if layer in self._slide_of_layer:
            self.attach(self._slide_of_layer[layer], new)

    def attach_opened_with(self, slides: Iterable[ViewerSlide], layers: Iterable[Layer]) -> None:
        """Attach layers to the slides that they were opened with, by their metadata."""
        for layer in layers:
            slide = layer.metadata.get(ON_SLIDE_KEY)
            owner = next((s for s in slides if s.slide is slide), None)
            if owner is not None and layer not in self._slide_of_layer:
                self.attach(owner, layer)

    def realign(self, slide: ViewerSlide, layers: Iterable[Layer]) -> None:
        """Let the layers of a slide follow it after it was moved."""
        for layer in self.layers_of(slide, layers):
            _align_to_slide(slide, layer)

    def slide_of(self, layer: Layer) -> ViewerSlide | None:
        """Return the slide that a layer belongs to, if it is known."""
        return self._slide_of_layer.get(layer)

    def layers_of(self, slide: ViewerSlide, layers: Iterable[Layer]) -> list[Layer]:
        """Return those of the layers that belong to the slide."""
        return [layer for layer in layers if self._slide_of_layer.get(layer) is slide]

    def rescale(
        self, slide: ViewerSlide, size: PixelSize | None, layers: list[Layer], only_slide: bool
    ) -> None:
        """Set the pixel size of a slide and rescale its layers, which keep their position on it.

        Parameters
        ----------
        slide : ViewerSlide
        size : PixelSize or None
        layers : list of Layer
            All layers of the viewer.
        only_slide : bool
            No other slide is open, so shapes and points of the user belong to this one.
        """
        before = slide.mpp
        slide.pixel_size = size
        own, world = slide.mpp / before, slide.mpp / float(slide.layer.scale[-1])
        units = PIXEL_UNITS if size is None else MICROMETER_UNITS
        _rescale_layer(slide.layer, (slide.mpp, slide.mpp), world, units)
        for layer in layers:
            if layer in self._slide_of_layer:
                if self._slide_of_layer[layer] is slide:
                    _rescale_layer(layer, np.asarray(layer.scale) * own, own, units)
                    _align_to_slide(slide, layer)
            elif only_slide and isinstance(layer, Shapes | Points) and layer.ndim == 2:
                _rescale_layer(layer, np.asarray(layer.scale) * world, world, units)


def slide_to_world(xy: NDArray[np.float64], slide: ViewerSlide) -> NDArray[np.float64]:
    """Convert (N, 2) positions (x, y) in level-0 px to world coordinates (x, y)."""
    matrix = slide_to_world_matrix(slide)
    return swap_xy(swap_xy(xy) * slide.mpp @ matrix[:2, :2].T + matrix[:2, 2])


def layer_to_slide(
    layer: Layer, data: NDArray[np.floating], slide: ViewerSlide
) -> NDArray[np.float64]:
    """Convert (N, 2) points of a layer to level-0 px (x, y) of a slide, through the world."""

    def convert(row: float, column: float) -> NDArray[np.float64]:
        world = layer.data_to_world((row, column))[-2:]
        return np.asarray(slide.layer.world_to_data(world)[-2:])

    # napari converts one point per call. The map is affine, so three points determine it.
    origin = convert(0, 0)
    axes = np.stack([convert(1, 0) - origin, convert(0, 1) - origin])
    return swap_xy(np.asarray(data)[:, -2:] @ axes + origin)


def _rescale_layer(layer: Layer, scale: object, ratio: float, units: tuple[str, str]) -> None:
    layer.scale = scale
    layer.translate = tuple(t * ratio for t in layer.translate)
    layer.units = units
    layer.axis_labels = AXIS_LABELS


def _align_to_slide(slide: ViewerSlide, layer: Layer) -> None:
    """Give a layer the position, rotation and scale of the slide's layer."""
    matrix = slide_to_world_matrix(slide)
    if not np.allclose(matrix, layer.affine.affine_matrix, atol=1e-9):
        layer.affine = matrix


def slide_to_world_matrix(slide: ViewerSlide) -> NDArray[np.float64]:
    """Return the matrix (3, 3) from um on the slide (y, x) to the world.

    It is the identity if the slide's layer only has a scale.
    """
    origin, down, across = (
        np.asarray(slide.layer.data_to_world(at)[-2:]) for at in ((0, 0), (1, 0), (0, 1))
    )
    matrix = np.eye(3)
    matrix[:2, 0] = (down - origin) / slide.mpp
    matrix[:2, 1] = (across - origin) / slide.mpp
    matrix[:2, 2] = origin
    return matrix
