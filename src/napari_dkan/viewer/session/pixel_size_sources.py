"""Pixel sizes from other sources than the slide file: the user, the history, a spot array."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import numpy as np
from napari.layers import Layer, Points

from ...errors import SlideError
from ...slide import PixelSize, Slide
from ...slide.pixel_size import UM_PER_PX_AT_1X
from ..worker import JobRunner
from .slide_layer import ViewerSlide, layer_to_slide
from .user_history import load_pixel_sizes, save_pixel_size

MANUAL_ORIGIN, HISTORY_ORIGIN, RULER_ORIGIN = "entered by hand", "entered before", "ruler"
USER_ORIGINS = MANUAL_ORIGIN, HISTORY_ORIGIN, RULER_ORIGIN


def is_uncertain(size: PixelSize | None) -> bool:
    """Whether anybody who knows the pixel size better is believed."""
    return size is None or size.is_estimated


def recall_pixel_size(slide: Slide) -> PixelSize | None:
    """What a person said of this slide before. Reads a little of it. Raises SlideError."""
    kept = load_pixel_sizes()
    if not kept:
        return None
    mpp, origin = kept.get(slide.fingerprint(), (None, ""))
    try:
        return None if mpp is None else PixelSize(mpp, origin or HISTORY_ORIGIN)
    except SlideError:
        return None  # somebody edited the file


def format_pixel_size(size: PixelSize, native_size: PixelSize | None) -> str:
    """A pixel size and who says so, for people; stated : what the slide itself says."""
    if size.is_estimated:
        return (
            f"about {size.mpp:.3g} um/px, estimated from the objective power "
            f"{UM_PER_PX_AT_1X / size.mpp:.0f}x; check it"
        )
    if size.origin == RULER_ORIGIN:
        by = "measured with the ruler"
    else:
        by = size.origin if size.origin.startswith("entered") else f"from the {size.origin}"
    if native_size is None or abs(native_size.mpp - size.mpp) < 1e-3 * size.mpp:
        return f"{size.mpp:.4g} um/px, {by}"
    return f"{size.mpp:.4g} um/px, {by} ({native_size.mpp:.4g} from the {native_size.origin})"


class PixelSizeHistory:
    """Remembers pixel sizes. What is told apart by its pixels is looked at off the GUI thread."""

    def __init__(self) -> None:
        self._recall_runner, self._save_runner = (
            JobRunner("looking up pixel sizes"),
            JobRunner("pixel sizes"),
        )
        self._recall_queue: deque[tuple[Slide, Callable[[PixelSize], None]]] = deque()
        self._save_queue: deque[tuple[Slide, PixelSize | None]] = deque()

    @property
    def busy(self) -> bool:
        return self._recall_runner.busy or self._save_runner.busy

    def recall(self, slide: Slide, receive: Callable[[PixelSize], None]) -> None:
        """Tell what a person said of the slide before, if anything."""
        if slide.path is not None:
            size = recall_pixel_size(slide)
            if size is not None:
                receive(size)
            return
        self._recall_queue.append((slide, receive))
        if not self._recall_runner.busy:
            self._start_next_recall()

    def save(self, slide: Slide, size: PixelSize | None) -> None:
        """Remember what a person says of the slide; None forgets it."""
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
    from ...expression.array_geometry import ST_PITCH_UM, VISIUM_PITCH_UM, mpp_from_spots
    from ...spatial.spots import Spots

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
