"""Spots of a Points layer that lie on an array, and the pixel size that gives away."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Layer, Points

from ..errors import SlideError
from ..slide import PixelSize
from .on_slide import layer_to_slide

if TYPE_CHECKING:
    from .open_slides import ViewerSlide

ARRAY_COLUMNS = ("array_x", "array_y")  # features of a Points layer that lies on an array
ARRAY_COLUMN_NAMES = (ARRAY_COLUMNS, ("array_col", "array_row"))  # as others write them, x first
SPOT_ARRAY_ORIGIN = "spot array"
MIN_SPOTS = 8


def pixel_size_from_spots(layer: Layer, slide: ViewerSlide) -> PixelSize | None:
    """What a layer's spots say of the slide, None for other layers and spots on no array.

    An array whose every second place is empty is Visium's, any other one that of Spatial
    Transcriptomics.
    """
    if not isinstance(layer, Points) or layer.ndim != 2 or len(layer.data) < MIN_SPOTS:
        return None
    columns = next((pair for pair in ARRAY_COLUMN_NAMES if set(pair) <= set(layer.features)), None)
    if columns is None:
        return None
    from ..expression.arrayfit import ST_PITCH_UM, VISIUM_PITCH_UM, mpp_from_spots
    from ..spatial.spots import Spots

    try:
        array = layer.features[list(columns)].to_numpy().astype(np.int64)
    except (TypeError, ValueError):
        return None  # text, or places that are missing
    parity = array.sum(axis=1) % 2
    pitch = VISIUM_PITCH_UM if (parity == parity[0]).all() else ST_PITCH_UM
    mpp = mpp_from_spots(Spots(layer_to_slide(layer, layer.data, slide), array, pitch_um=pitch))
    try:
        return None if mpp is None else PixelSize(mpp, SPOT_ARRAY_ORIGIN)
    except SlideError:
        return None
