"""Pixel sizes from other sources than the slide file: the user, the history, a spot array."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import numpy as np
from napari.layers import Layer, Points
from numpy.typing import NDArray

from ...errors import SlideError
from ...slide import PixelSize, Slide
from ...slide.pixel_size import (
    ENTERED_ORIGINS,
    HISTORY_ORIGIN,
    MANUAL_ORIGIN,
    RULER_ORIGIN,
    UM_PER_PX_AT_1X,
    SizeClaim,
    resolve_pixel_size,
)
from ..worker import JobRunner
from .slide_layer import ViewerSlide, layer_to_slide
from .user_history import load_pixel_sizes, save_pixel_size

USER_ORIGINS = ENTERED_ORIGINS


def is_uncertain(size: PixelSize | None) -> bool:
    """Return whether another source may replace this pixel size."""
    return size is None or size.is_estimated


def recall_pixel_size(slide: Slide) -> PixelSize | None:
    """Return the pixel size that the user entered for this slide before.

    Raises
    ------
    SlideError
        If the fingerprint of the slide cannot be read.
    """
    history = load_pixel_sizes()
    if not history:
        return None
    mpp, origin = history.get(slide.fingerprint(), (None, ""))
    try:
        return None if mpp is None else PixelSize(mpp, origin or HISTORY_ORIGIN)
    except SlideError:
        return None  # the file was edited


def format_pixel_size(size: PixelSize, native_size: PixelSize | None) -> str:
    """Format a pixel size with its origin.

    Parameters
    ----------
    size : PixelSize
    native_size : PixelSize or None
        That of the slide itself; added where it differs.
    """
    if size.is_estimated:
        return (
            f"about {size.mpp:.3g} um/px, estimated from the objective power "
            f"{UM_PER_PX_AT_1X / size.mpp:.0f}x; check it"
        )
    if size.origin == RULER_ORIGIN:
        source = "measured with the ruler"
    else:
        source = size.origin if size.origin.startswith("entered") else f"from the {size.origin}"
    if native_size is None or abs(native_size.mpp - size.mpp) < 1e-3 * size.mpp:
        return f"{size.mpp:.4g} um/px, {source}"
    return f"{size.mpp:.4g} um/px, {source} ({native_size.mpp:.4g} from the {native_size.origin})"


class PixelSizeHistory:
    """Pixel sizes that the user entered, across sessions.

    Slides without a file are identified by their pixels, which are read in a worker thread.
    """

    def __init__(self) -> None:
        self._recall_runner = JobRunner("looking up pixel sizes")
        self._save_runner = JobRunner("pixel sizes")
        self._recall_queue: deque[tuple[Slide, Callable[[PixelSize], None]]] = deque()
        self._save_queue: deque[tuple[Slide, PixelSize | None]] = deque()

    @property
    def busy(self) -> bool:
        return self._recall_runner.busy or self._save_runner.busy

    def recall(self, slide: Slide, receive: Callable[[PixelSize], None]) -> None:
        """Call ``receive`` with the pixel size that the user entered before, if any."""
        if slide.path is not None:
            size = recall_pixel_size(slide)
            if size is not None:
                receive(size)
            return
        self._recall_queue.append((slide, receive))
        if not self._recall_runner.busy:
            self._start_next_recall()

    def save(self, slide: Slide, size: PixelSize | None) -> None:
        """Remember a pixel size; None removes it from the history."""
        if slide.path is not None:
            _save_to_history(slide, size)
            return
        self._save_queue.append((slide, size))
        if not self._save_runner.busy:
            self._start_next_save()

    def _start_next_recall(self) -> None:
        if self._recall_queue:
            slide, receive = self._recall_queue.popleft()

            def job() -> Iterator[PixelSize]:
                size = recall_pixel_size(slide)
                if size is not None:
                    yield size

            self._recall_runner.start(job, receive, lambda failure: self._start_next_recall())

    def _start_next_save(self) -> None:
        if self._save_queue:
            slide, size = self._save_queue.popleft()

            def job() -> Iterator[None]:
                _save_to_history(slide, size)
                yield

            self._save_runner.start(job, lambda item: None, lambda failure: self._start_next_save())


def _save_to_history(slide: Slide, size: PixelSize | None) -> None:
    if size is None:
        save_pixel_size(slide.fingerprint(), None)
    else:
        save_pixel_size(
            slide.fingerprint(), size.mpp, "" if size.origin == MANUAL_ORIGIN else size.origin
        )


ARRAY_COLUMNS = ("array_x", "array_y")  # array coordinates among the features of a Points layer
ARRAY_COLUMN_NAMES = (ARRAY_COLUMNS, ("array_col", "array_row"))  # ours and those of others
PITCH_KEY = "spot pitch in um"  # of a Points layer's metadata, where the file states it
SPOT_ARRAY_ORIGIN = "spot array"
MIN_SPOTS = 8


def array_from_features(layer: Points) -> NDArray[np.int64] | None:
    """Return the array coordinates (N, 2) among the features of a layer, if it has them."""
    columns = next((pair for pair in ARRAY_COLUMN_NAMES if set(pair) <= set(layer.features)), None)
    if columns is None:
        return None
    try:
        return np.asarray(layer.features[list(columns)]).astype(np.int64)
    except (TypeError, ValueError):
        return None  # text, or missing coordinates


def pixel_size_from_spots(layer: Layer, slide: ViewerSlide) -> PixelSize | None:
    """Estimate the pixel size of a slide from the pitch of a spot array.

    Returns
    -------
    PixelSize or None
        None for layers without array coordinates.
    """
    mpp = _mpp_from_spots(layer, slide)
    try:
        return None if mpp is None else PixelSize(mpp, SPOT_ARRAY_ORIGIN)
    except SlideError:
        return None


def check_spot_array(layer: Layer, slide: ViewerSlide) -> None:
    """Check the pixel size of a slide against the pitch of a spot array on it.

    Raises
    ------
    SlideError
        They are more than 10 % apart, and the user has not entered the pixel size.
    """
    mpp = _mpp_from_spots(layer, slide)
    if mpp is not None:
        claim = SizeClaim(mpp, f"{SPOT_ARRAY_ORIGIN} '{layer.name}'")
        advice = "enter the right one under Slide (press 'change')"
        resolve_pixel_size(slide.slide.label, slide.pixel_size, [claim], advice=advice)


def _mpp_from_spots(layer: Layer, slide: ViewerSlide) -> float | None:
    """Return um per px by the pitch of an array.

    Unless the layer states its pitch, an array in which every second position is empty is a Visium
    array, and any other one is an array of Spatial Transcriptomics.
    """
    if not isinstance(layer, Points) or layer.ndim != 2 or len(layer.data) < MIN_SPOTS:
        return None
    array = array_from_features(layer)
    if array is None:
        return None
    from ...expression.array_geometry import (
        ST_PITCH_UM,
        VISIUM_PITCH_UM,
        is_hexagonal,
        mpp_from_spots,
    )
    from ...spatial.spots import Spots

    usual = VISIUM_PITCH_UM if is_hexagonal(array, MIN_SPOTS) else ST_PITCH_UM
    pitch = layer.metadata.get(PITCH_KEY, usual)
    return mpp_from_spots(Spots(layer_to_slide(layer, layer.data, slide), array, pitch_um=pitch))
