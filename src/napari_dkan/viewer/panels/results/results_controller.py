"""Controller of the results of a session: save, export, draw and reopen, one job at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import ref

from napari.layers import Shapes
from psygnal import Signal

from ....errors import DkanError, OutputError, SlideError
from ....export.saved_result import open_matching_slide
from ...session.prediction_overlay import PredictionOverlay
from ...session.slide_layer import ViewerSlide
from ...session.viewer_session import ViewerSession, get_component
from ...worker import JobFailure, JobRunner
from . import save_result as writing
from .restore_result import (
    LocatedResult,
    RestoredResult,
    add_slide_layer,
    attach_slide,
    locate_result,
    restore_result,
)
from .save_result import get_selected_map, snapshot_canvas, snapshot_result

if TYPE_CHECKING:
    from ....export.saved_result import SavedResult
    from ....slide import Slide


NO_MAP_MESSAGE = "There is no predicted map yet: predict a region, then save it."


class ResultsController:
    """Does what is asked in a thread, in the order asked, and tells in a sentence how it went."""

    changed = Signal()
    about_to_restore_checkpoint = Signal()  # a result brings its checkpoint: none other is wanted

    def __init__(self, session: ViewerSession) -> None:
        self._session = ref(session)  # which is what keeps these results
        self.message, self.message_is_warning = "", False
        self.get_regions_layer: Callable[[], Shapes | None] | None = None  # the one drawn in
        self.restored_results: list[RestoredResult] = []
        self._runner = JobRunner("results")
        self._queued_jobs: deque[Callable[[], None]] = deque()
        self._is_running = self._is_opening = False
        session.slides_changed.connect(self._on_slides_changed)

    @property
    def session(self) -> ViewerSession:
        session = self._session()
        if session is None:
            raise RuntimeError("the session of these results is gone")
        return session

    def drawn_regions(self) -> Shapes | None:
        """The layer of drawn regions, while the panel is open."""
        return None if self.get_regions_layer is None else self.get_regions_layer()

    @property
    def busy(self) -> bool:
        return self._is_running

    @property
    def result_without_slide(self) -> RestoredResult | None:
        """The newest reopened result that waits for its slide."""
        waits = [r for r in self._prune_restored() if r.slide is None]
        return waits[-1] if waits else None

    def cancel(self) -> None:
        """Leave what is being done; a file is not begun, or whole."""
        self._queued_jobs.clear()
        if self._is_running:
            self._runner.cancel()
            self._is_running = self._is_opening = False
            self.show_message("Cancelled; what was not written yet is not there.")

    def close(self) -> None:
        """The panel goes: nothing comes in any more, but a file is written to its end."""
        self._queued_jobs.clear()
        self.get_regions_layer = None
        if self._is_opening:
            self._runner.cancel()
            self._is_running = self._is_opening = False
            self._runner.wait()

    def show_message(self, text: str, warning: bool = False) -> None:
        self.message, self.message_is_warning = text, warning
        self.changed.emit()

    # ---- out -------------------------------------------------------------------------

    def save_result(self, path: Path) -> None:
        """Save the chosen map as what the name's ending says."""
        try:
            overlay = self._require_map()
            made = snapshot_result(
                self.session, overlay, self.drawn_regions(), self.find_source(overlay)
            )
        except DkanError as error:
            self.show_message(str(error), warning=True)
            return
        self._enqueue(partial(writing.save_snapshot, path, made), f"Saving {path.name} ...")

    def save_figure(self, path: Path) -> None:
        """Write a figure of what the canvas shows now."""
        try:
            self._require_map()
            view = snapshot_canvas(self.session, self.drawn_regions(), self._prune_restored())
        except DkanError as error:
            self.show_message(str(error), warning=True)
            return
        self._enqueue(partial(writing.write_canvas_figure, path, view), f"Drawing {path.name} ...")

    def _require_map(self) -> PredictionOverlay:
        overlay = get_selected_map(self.session)
        if overlay is None:
            raise OutputError(NO_MAP_MESSAGE)
        return overlay

    def find_source(self, overlay: PredictionOverlay) -> SavedResult | None:
        """The file a map came from."""
        return next((r.saved for r in self.restored_results if r.overlay is overlay), None)

    # ---- in --------------------------------------------------------------------------

    def open_result(self, path: Path) -> None:
        """Bring a saved result back into the window."""
        session = self.session

        def job() -> Iterator[LocatedResult]:
            yield locate_result(path, list(session.slides), session.checkpoint)

        self._enqueue(job, f"Opening {path.name} ...", self._on_opened)

    def locate_slide(self, path: Path) -> None:
        """Take this file for the slide of the result that waits for one."""
        reopened = self.result_without_slide
        if reopened is None:
            return
        saved = reopened.saved

        def job() -> Iterator[tuple[RestoredResult, Slide]]:
            slide = open_matching_slide(saved, path)
            if slide is None:
                raise SlideError(
                    f"{path.name} is not the slide {saved.slide_record.name} that this result was "
                    "predicted on: its content differs, or it is no slide. Choose another file."
                )
            yield reopened, slide

        self._enqueue(job, f"Looking at {path.name} ...", self._on_slide_located)

    def _on_opened(self, found: LocatedResult) -> None:
        if found.checkpoint is not None and found.checkpoint is not self.session.checkpoint:
            self.about_to_restore_checkpoint.emit()
        reopened = restore_result(self.session, found)
        self.restored_results.append(reopened)
        self.show_message(
            writing.describe_restored_result(found, reopened), warning=reopened.slide is None
        )

    def _on_slide_located(self, item: tuple[RestoredResult, Slide]) -> None:
        reopened, slide = item
        if reopened in self._prune_restored() and reopened.slide is None:
            add_slide_layer(self.session, slide, reopened.saved)  # which comes back below

    def _on_slides_changed(self) -> None:
        """A slide that is opened may be the one that a result waits for."""
        slides = self.session.slides
        for reopened in self._prune_restored():
            if reopened.slide is not None and reopened.slide not in slides:
                reopened.slide = None
            wanted = reopened.saved.slide_record.fingerprint
            found = [s for s in slides if s.slide.fingerprint() == wanted]
            if reopened.slide is None and found:
                self._attach_slide(reopened, found[-1])
        self.changed.emit()

    def _attach_slide(self, reopened: RestoredResult, slide: ViewerSlide) -> None:
        attach_slide(self.session, reopened, slide)
        self.show_message(f"{slide.layer.name} is the slide of {reopened.overlay.layer.name}.")

    def _prune_restored(self) -> list[RestoredResult]:
        self.restored_results = [
            r for r in self.restored_results if r.overlay in self.session.overlays
        ]
        return self.restored_results

    # ---- one after the other -----------------------------------------------------------

    def _enqueue(
        self,
        job: Callable[[], Iterator[Any]],
        message: str,
        on_item: Callable[[Any], None] | None = None,
    ) -> None:
        self._queued_jobs.append(partial(self._start, job, message, on_item))
        if not self._is_running:
            self._start_next()

    def _start_next(self) -> None:
        if self._queued_jobs:
            self._queued_jobs.popleft()()

    def _start(
        self, job: Callable[[], Iterator[Any]], message: str, on_item: Callable[[Any], None] | None
    ) -> None:
        def receive(item: Any) -> None:
            if isinstance(item, str):
                self.show_message(item)
            elif on_item is not None:
                on_item(item)

        def end(failure: JobFailure | None) -> None:
            self._is_running = self._is_opening = False
            if failure is not None:
                self.show_message(failure.message, warning=True)
            self.changed.emit()
            self._start_next()

        self._is_running, self._is_opening = True, on_item is not None
        self.show_message(message)
        self._runner.start(job, receive, end)


def get_results_controller(session: ViewerSession) -> ResultsController:
    """The results of a session, made when first asked for."""
    return get_component(session, ResultsController)
