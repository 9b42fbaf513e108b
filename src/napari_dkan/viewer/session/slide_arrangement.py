"""Where slides lie on the canvas: one beside the other, and the camera on the chosen one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .slide_layer import ViewerSlide, slide_to_world

if TYPE_CHECKING:
    from napari.components import ViewerModel


CANVAS_FILL = 0.95
GAP_FRACTION = 0.05  # of the width of a slide, between it and its neighbour


def slide_bounds(slide: ViewerSlide) -> NDArray[np.float64]:
    """Return the corners of a slide in the world, (2, 2): least and greatest (x, y)."""
    sides = ((0.0, slide.slide.width), (0.0, slide.slide.height))
    # Level-0 px (0, 0) is the centre of the first pixel.
    corners = slide_to_world(np.array(list(product(*sides))) - 0.5, slide)
    return np.stack([corners.min(axis=0), corners.max(axis=0)])


def overlap(first: ViewerSlide, second: ViewerSlide) -> bool:
    """Whether two slides lie on each other."""
    (low, high), (other_low, other_high) = slide_bounds(first), slide_bounds(second)
    return bool((low < other_high).all() and (other_low < high).all())


def is_untransformed(slide: ViewerSlide) -> bool:
    """Whether nobody has moved or turned the layer of a slide."""
    layer = slide.layer
    return bool(
        np.allclose(layer.translate, 0)
        and np.allclose(layer.rotate, np.eye(layer.ndim))
        and np.allclose(layer.affine.affine_matrix, np.eye(layer.ndim + 1))
    )


def lay_beside(slide: ViewerSlide, others: Sequence[ViewerSlide]) -> float:
    """Move a slide to the right of others; return how far, in world units."""
    left, right = slide_bounds(slide)[:, 0]
    edge = max(float(slide_bounds(other)[1, 0]) for other in others)
    shift = edge + GAP_FRACTION * float(right - left) - float(left)
    layer = slide.layer
    y, x = layer.translate
    layer.translate = (y, x + shift)
    return shift


def show_slide(viewer: ViewerModel, slide: ViewerSlide) -> None:
    """Move the camera to a slide, unless it looks at that slide already."""
    low, high = slide_bounds(slide)
    y, x = viewer.scene.camera.center[-2:]
    if not (low[0] <= x <= high[0] and low[1] <= y <= high[1]):
        fit_slide(viewer, slide)


def fit_slide(viewer: ViewerModel, slide: ViewerSlide) -> None:
    """Let the camera show a whole slide."""
    if viewer.dims.ndim == slide.layer.ndim:
        viewer.fit_to_view(layers=[slide.layer])
        return
    # napari cannot fit a layer that has fewer dimensions than others.
    low, high = slide_bounds(slide)
    camera, (x, y) = viewer.scene.camera, (low + high) / 2
    camera.center = (0.0, float(y), float(x))
    camera.zoom = CANVAS_FILL * float(np.min(np.array(viewer.canvas.size)[::-1] / (high - low)))
