"""Pixel sizes that a person gave: kept per slide, and told with where they come from."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from ..errors import SlideError
from ..slide import PixelSize, Slide
from ..slide.pixel_size import UM_AT_ONE
from .lane import Lane
from .memory import remember_mpp, remembered_mpps

BY_HAND, BEFORE, RULER = "entered by hand", "entered before", "ruler"
BY_PERSON = BY_HAND, BEFORE, RULER


def unsure(size: PixelSize | None) -> bool:
    """Whether anybody who knows the pixel size better is believed."""
    return size is None or size.estimated


def remembered(slide: Slide) -> PixelSize | None:
    """What a person said of this slide before. Reads a little of it. Raises SlideError."""
    kept = remembered_mpps()
    if not kept:
        return None
    mpp, origin = kept.get(slide.fingerprint(), (None, ""))
    try:
        return None if mpp is None else PixelSize(mpp, origin or BEFORE)
    except SlideError:
        return None  # somebody edited the file


def told(size: PixelSize, stated: PixelSize | None) -> str:
    """A pixel size and who says so, for people; stated : what the slide itself says."""
    if size.estimated:
        return (
            f"about {size.mpp:.3g} um/px, estimated from the objective power "
            f"{UM_AT_ONE / size.mpp:.0f}x; check it"
        )
    if size.origin == RULER:
        by = "measured with the ruler"
    else:
        by = size.origin if size.origin.startswith("entered") else f"from the {size.origin}"
    if stated is None or abs(stated.mpp - size.mpp) < 1e-3 * size.mpp:
        return f"{size.mpp:.4g} um/px, {by}"
    return f"{size.mpp:.4g} um/px, {by} ({stated.mpp:.4g} from the {stated.origin})"


class PixelSizes:
    """Remembers pixel sizes. What is told apart by its pixels is looked at off the GUI thread."""

    def __init__(self) -> None:
        self._recalling, self._keeping = Lane("looking up pixel sizes"), Lane("pixel sizes")
        self._asked: deque[tuple[Slide, Callable[[PixelSize], None]]] = deque()
        self._kept: deque[tuple[Slide, PixelSize | None]] = deque()

    @property
    def busy(self) -> bool:
        return self._recalling.busy or self._keeping.busy

    def recall(self, slide: Slide, receive: Callable[[PixelSize], None]) -> None:
        """Tell what a person said of the slide before, if anything."""
        if slide.path is not None:
            size = remembered(slide)
            if size is not None:
                receive(size)
            return
        self._asked.append((slide, receive))
        if not self._recalling.busy:
            self._recall_next()

    def keep(self, slide: Slide, size: PixelSize | None) -> None:
        """Remember what a person says of the slide; None forgets it."""
        if slide.path is not None:
            _keep(slide, size)
            return
        self._kept.append((slide, size))
        if not self._keeping.busy:
            self._keep_next()

    def _recall_next(self) -> None:
        if self._asked:
            slide, receive = self._asked.popleft()

            def job() -> Iterator[PixelSize]:
                size = remembered(slide)
                if size is not None:
                    yield size

            self._recalling.start(job, receive, lambda failure: self._recall_next())

    def _keep_next(self) -> None:
        if self._kept:
            slide, size = self._kept.popleft()

            def job() -> Iterator[None]:
                _keep(slide, size)
                yield

            self._keeping.start(job, lambda item: None, lambda failure: self._keep_next())


def _keep(slide: Slide, size: PixelSize | None) -> None:
    if size is None:
        remember_mpp(slide.fingerprint(), None)
    else:
        remember_mpp(slide.fingerprint(), size.mpp, "" if size.origin == BY_HAND else size.origin)
