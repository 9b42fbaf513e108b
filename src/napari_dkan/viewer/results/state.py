"""Results of one session: saved, exported, drawn as a figure, and opened again; one at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import ref

from napari.layers import Shapes
from psygnal import Signal

from ...errors import DkanError, OutputError, SlideError
from ...export.slide_again import open_same
from ..companions import companion
from ..lane import Failure, Lane
from ..overlay import Overlay
from ..session import OpenSlide, Session
from . import writing
from .finding import Found, find
from .gathering import chosen_map, gather
from .picturing import seen
from .restoring import Reopened, lay_on, restore, show_slide

if TYPE_CHECKING:
    from ...export.saved import Saved
    from ...slide import Slide

NOTHING = "There is no predicted map yet: predict a region, then save it."


class Results:
    """Does what is asked in a thread, in the order asked, and tells in a sentence how it went."""

    changed = Signal()
    taking_checkpoint = Signal()  # a result brings its checkpoint: none other is wanted

    def __init__(self, session: Session) -> None:
        self._session = ref(session)  # which is what keeps these results
        self.said, self.alarming = "", False
        self.regions_layer: Callable[[], Shapes | None] | None = None  # the one drawn in
        self.reopened: list[Reopened] = []
        self._lane = Lane("results")
        self._waiting: deque[Callable[[], None]] = deque()
        self._doing = self._taking = False
        session.slides_changed.connect(self._slides_changed)

    @property
    def session(self) -> Session:
        session = self._session()
        if session is None:
            raise RuntimeError("the session of these results is gone")
        return session

    def regions(self) -> Shapes | None:
        """The layer of drawn regions, while the panel is open."""
        return None if self.regions_layer is None else self.regions_layer()

    @property
    def busy(self) -> bool:
        return self._doing

    @property
    def slideless(self) -> Reopened | None:
        """The newest reopened result that waits for its slide."""
        waits = [r for r in self._here() if r.slide is None]
        return waits[-1] if waits else None

    def cancel(self) -> None:
        """Leave what is being done; a file is not begun, or whole."""
        self._waiting.clear()
        if self._doing:
            self._lane.cancel()
            self._doing = self._taking = False
            self.say("Cancelled; what was not written yet is not there.")

    def close(self) -> None:
        """The panel goes: nothing comes in any more, but a file is written to its end."""
        self._waiting.clear()
        self.regions_layer = None
        if self._taking:
            self._lane.cancel()
            self._doing = self._taking = False
            self._lane.wait()

    def say(self, text: str, alarming: bool = False) -> None:
        self.said, self.alarming = text, alarming
        self.changed.emit()

    # ---- out -------------------------------------------------------------------------

    def write(self, path: Path) -> None:
        """Save the chosen map as what the name's ending says."""
        try:
            overlay = self._chosen()
            made = gather(self.session, overlay, self.regions(), self.source(overlay))
        except DkanError as error:
            self.say(str(error), alarming=True)
            return
        self._queue(partial(writing.write, path, made), f"Saving {path.name} ...")

    def draw(self, path: Path) -> None:
        """Write a figure of what the canvas shows now."""
        try:
            self._chosen()
            view = seen(self.session, self.regions(), self._here())
        except DkanError as error:
            self.say(str(error), alarming=True)
            return
        self._queue(partial(writing.draw, path, view), f"Drawing {path.name} ...")

    def _chosen(self) -> Overlay:
        overlay = chosen_map(self.session)
        if overlay is None:
            raise OutputError(NOTHING)
        return overlay

    def source(self, overlay: Overlay) -> Saved | None:
        """The file a map came from."""
        return next((r.saved for r in self.reopened if r.overlay is overlay), None)

    # ---- in --------------------------------------------------------------------------

    def open(self, path: Path) -> None:
        """Bring a saved result back into the window."""
        session = self.session

        def job() -> Iterator[Found]:
            yield find(path, list(session.slides), session.checkpoint)

        self._queue(job, f"Opening {path.name} ...", self._opened)

    def locate(self, path: Path) -> None:
        """Take this file for the slide of the result that waits for one."""
        reopened = self.slideless
        if reopened is None:
            return
        saved = reopened.saved

        def job() -> Iterator[tuple[Reopened, Slide]]:
            slide = open_same(saved, path)
            if slide is None:
                raise SlideError(
                    f"{path.name} is not the slide {saved.slide.name} that this result was "
                    "predicted on: its content differs, or it is no slide. Choose another file."
                )
            yield reopened, slide

        self._queue(job, f"Looking at {path.name} ...", self._located)

    def _opened(self, found: Found) -> None:
        if found.checkpoint is not None and found.checkpoint is not self.session.checkpoint:
            self.taking_checkpoint.emit()
        reopened = restore(self.session, found)
        self.reopened.append(reopened)
        self.say(writing.told(found, reopened), alarming=reopened.slide is None)

    def _located(self, item: tuple[Reopened, Slide]) -> None:
        reopened, slide = item
        if reopened in self._here() and reopened.slide is None:
            show_slide(self.session, slide, reopened.saved)  # which comes back below

    def _slides_changed(self) -> None:
        """A slide that is opened may be the one that a result waits for."""
        slides = self.session.slides
        for reopened in self._here():
            if reopened.slide is not None and reopened.slide not in slides:
                reopened.slide = None
            wanted = reopened.saved.slide.fingerprint
            found = [s for s in slides if s.slide.fingerprint() == wanted]
            if reopened.slide is None and found:
                self._lay(reopened, found[-1])
        self.changed.emit()

    def _lay(self, reopened: Reopened, slide: OpenSlide) -> None:
        lay_on(self.session, reopened, slide)
        self.say(f"{slide.layer.name} is the slide of {reopened.overlay.layer.name}.")

    def _here(self) -> list[Reopened]:
        self.reopened = [r for r in self.reopened if r.overlay in self.session.overlays]
        return self.reopened

    # ---- one after the other -----------------------------------------------------------

    def _queue(
        self,
        job: Callable[[], Iterator[Any]],
        doing: str,
        take: Callable[[Any], None] | None = None,
    ) -> None:
        self._waiting.append(partial(self._start, job, doing, take))
        if not self._doing:
            self._next()

    def _next(self) -> None:
        if self._waiting:
            self._waiting.popleft()()

    def _start(
        self, job: Callable[[], Iterator[Any]], doing: str, take: Callable[[Any], None] | None
    ) -> None:
        def receive(item: Any) -> None:
            if isinstance(item, str):
                self.say(item)
            elif take is not None:
                take(item)

        def end(failure: Failure | None) -> None:
            self._doing = self._taking = False
            if failure is not None:
                self.say(failure.sentence, alarming=True)
            self.changed.emit()
            self._next()

        self._doing, self._taking = True, take is not None
        self.say(doing)
        self._lane.start(job, receive, end)


def results_of(session: Session) -> Results:
    """The results of a session, made when first asked for."""
    return companion(session, Results)
