"""What lies on which slide: it keeps its place there when the slide's scale is corrected."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
from napari.layers import Layer, Points, Shapes
from numpy.typing import NDArray

from ..slide import PixelSize
from ..spatial.coordinates import swap_xy
from .slides import AXIS_LABELS, PIXEL_UNITS, MICROMETER_UNITS

if TYPE_CHECKING:
    from .session import ViewerSlide


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


def layer_to_slide(layer: Layer, data: NDArray[np.floating], slide: ViewerSlide) -> NDArray[np.float64]:
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
