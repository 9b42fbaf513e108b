"""Controller of the results of a session: save, export, draw and reopen, one job at a time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import ref

from napari.layers import Shapes
from psygnal import Signal

from ....errors import DkanError, OutputError, SlideError
from ....export import figure_rendering
from ....export.export_formats import find_export_format
from ....export.saved_result import open_matching_slide
from ...layers.overlay_lookup import get_selected_map
from ...session.prediction_overlay import PredictionOverlay
from ...session.viewer_session import ViewerSession, get_component
from ...worker import JobFailure, JobRunner
from .restore_result import (
    LocatedResult,
    RestoredResult,
    add_slide_layer,
    attach_slide,
    describe_restored_result,
    locate_result,
    restore_result,
)
from .save_result import save_snapshot, snapshot_canvas, snapshot_result, write_canvas_figure

if TYPE_CHECKING:
    from ....export.saved_result import SavedResult
    from ....slide import Slide


YIELD_SECONDS = 0.1  # between two checks whether another job runs
NO_MAP_MESSAGE = "There is no predicted map yet: predict a region, then save it."


class ResultsController:
    """Runs one job after another in a worker thread.

    Attributes
    ----------
    message : str
        What is being done, or the outcome, for the user.
    message_is_warning : bool
    get_regions_layer : callable or None
        Returns the layer of drawn regions, while the panel is open.
    restored_results : list of RestoredResult
    """

    changed = Signal()
    about_to_restore_checkpoint = Signal()  # another checkpoint that is being loaded is obsolete

    def __init__(self, session: ViewerSession) -> None:
        self._session = ref(session)  # the session holds this controller
        self.message, self.message_is_warning = "", False
        self.get_regions_layer: Callable[[], Shapes | None] | None = None
        self.restored_results: list[RestoredResult] = []
        self._runner = JobRunner("results")
        self._import_runner = JobRunner("getting figures ready", background=True)
        self._queued_jobs: deque[Callable[[], None]] = deque()
        self._is_running = self._is_opening = False
        session.slides_changed.connect(self._on_slides_changed)
        session.overlays_changed.connect(self._load_matplotlib)

    @property
    def session(self) -> ViewerSession:
        session = self._session()
        if session is None:
            raise RuntimeError("the session of these results is gone")
        return session

    def drawn_regions(self) -> Shapes | None:
        """Return the layer of drawn regions, while the panel is open."""
        return None if self.get_regions_layer is None else self.get_regions_layer()

    @property
    def busy(self) -> bool:
        return self._is_running

    @property
    def result_without_slide(self) -> RestoredResult | None:
        """Newest restored result whose slide is not open."""
        results = [r for r in self._prune_restored() if r.slide is None]
        return results[-1] if results else None

    def cancel(self) -> None:
        """Cancel all jobs; a file is either complete or was not started."""
        self._queued_jobs.clear()
        if self._is_running:
            self._runner.cancel()
            self._is_running = self._is_opening = False
            self.show_message("Cancelled; what was not written yet is not there.")

    def close(self) -> None:
        """Stop opening results; a file that is being written is completed."""
        self._import_runner.cancel()
        self._queued_jobs.clear()
        self.get_regions_layer = None
        if self._is_opening:
            self._runner.cancel()
            self._is_running = self._is_opening = False
            self._runner.wait()

    def show_message(self, text: str, warning: bool = False) -> None:
        self.message, self.message_is_warning = text, warning
        self.changed.emit()

    # ---- save ------------------------------------------------------------------------

    def save_result(self, path: Path, maps: Sequence[PredictionOverlay] = ()) -> None:
        """Save maps, by default the selected one, in the format of the file suffix.

        Each of several maps gets a file of its own, see `number_paths`.
        """
        try:
            maps = maps or [self._require_map()]
            paths = number_paths(path, len(maps))
            snapshots = [
                snapshot_result(self.session, o, self.drawn_regions(), self.find_source(o))
                for o in maps
            ]
        except DkanError as error:
            self.show_message(str(error), warning=True)
            return
        jobs = [(one, save_snapshot(one, s)) for one, s in zip(paths, snapshots, strict=True)]
        self._enqueue(partial(_save_all, jobs), f"Saving {path.name} ...")

    def save_figure(self, path: Path) -> None:
        """Write a figure of the canvas."""
        try:
            self._require_map()
            snapshot = snapshot_canvas(self.session, self.drawn_regions(), self._prune_restored())
        except DkanError as error:
            self.show_message(str(error), warning=True)
            return
        self._enqueue(partial(write_canvas_figure, path, snapshot), f"Drawing {path.name} ...")

    def _require_map(self) -> PredictionOverlay:
        overlay = get_selected_map(self.session)
        if overlay is None:
            raise OutputError(NO_MAP_MESSAGE)
        return overlay

    def find_source(self, overlay: PredictionOverlay) -> SavedResult | None:
        """Return the file that a map was read from."""
        return next((r.saved for r in self.restored_results if r.overlay is overlay), None)

    def _load_matplotlib(self) -> None:
        """Once the first map is there, import what draws its figure."""
        session = self.session
        if not session.overlays:
            return
        session.overlays_changed.disconnect(self._load_matplotlib)

        def job() -> Iterator[None]:
            while self._import_runner.is_foreground_busy():  # such as the map itself
                time.sleep(YIELD_SECONDS)
                yield None
            figure_rendering.load_matplotlib()

        self._import_runner.start(job, lambda item: None)

    # ---- open ------------------------------------------------------------------------

    def open_result(self, path: Path) -> None:
        """Open a saved result."""
        session = self.session

        def job() -> Iterator[LocatedResult]:
            yield locate_result(path, list(session.slides), session.checkpoint)

        self._enqueue(job, f"Opening {path.name} ...", self._on_opened)

    def locate_slide(self, path: Path) -> None:
        """Open this file as the slide of `result_without_slide`."""
        restored = self.result_without_slide
        if restored is None:
            return
        saved = restored.saved

        def job() -> Iterator[tuple[RestoredResult, Slide]]:
            slide = open_matching_slide(saved, path)
            if slide is None:
                raise SlideError(
                    f"{path.name} is not the slide {saved.slide_record.name} that this result was "
                    "predicted on: its content differs, or it is no slide. Choose another file."
                )
            yield restored, slide

        self._enqueue(job, f"Looking at {path.name} ...", self._on_slide_located)

    def _on_opened(self, located: LocatedResult) -> None:
        if located.checkpoint is not None and located.checkpoint is not self.session.checkpoint:
            self.about_to_restore_checkpoint.emit()
        restored = restore_result(self.session, located)
        self.restored_results.append(restored)
        message = describe_restored_result(located, restored)
        self.show_message(message, warning=restored.slide is None)

    def _on_slide_located(self, item: tuple[RestoredResult, Slide]) -> None:
        restored, slide = item
        if restored in self._prune_restored() and restored.slide is None:
            add_slide_layer(self.session, slide, restored.saved)  # calls `_on_slides_changed`

    def _on_slides_changed(self) -> None:
        """Attach results to slides that were opened, and detach them from closed ones."""
        slides = self.session.slides
        for restored in self._prune_restored():
            if restored.slide is not None and restored.slide not in slides:
                restored.slide = None
            fingerprint = restored.saved.slide_record.fingerprint
            matches = [s for s in slides if s.slide.fingerprint() == fingerprint]
            if restored.slide is None and matches:
                slide = matches[-1]
                attach_slide(self.session, restored, slide)
                name = restored.overlay.layer.name
                self.show_message(f"{slide.layer.name} is the slide of {name}.")
        self.changed.emit()

    def _prune_restored(self) -> list[RestoredResult]:
        self.restored_results = [
            r for r in self.restored_results if r.overlay in self.session.overlays
        ]
        return self.restored_results

    # ---- queue -------------------------------------------------------------------------

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


def number_paths(path: Path, count: int) -> list[Path]:
    """Return the path, or for several maps ``stem-1`` to ``stem-<count>`` with its suffix.

    Raises
    ------
    OutputError
        When one of several is there already, as nobody was asked whether to replace it.
    """
    if count == 1:
        return [path]
    suffix = find_export_format(path).suffix
    stem = path.name[: -len(suffix)]
    paths = [path.with_name(f"{stem}-{i}{path.name[len(stem) :]}") for i in range(1, count + 1)]
    for one in paths:
        if one.exists():
            raise OutputError(f"{one.name} is there already; choose another name.")
    return paths


def _save_all(jobs: Sequence[tuple[Path, Iterator[str]]]) -> Iterator[str]:
    """Save one map after the other, also after one that fails; the last message names all files.

    Raises
    ------
    OutputError
        Names what is saved too, and what failed and why.
    """
    lines, failure = [], None
    for path, job in jobs:
        text = ""
        try:
            for text in job:
                yield text
        except DkanError as error:
            if len(jobs) == 1:
                raise
            text, failure = f"{path.name} is not saved: {error}", error
        lines.append(text)
    if failure is not None:
        raise OutputError("\n".join(lines)) from failure
    if len(lines) > 1:
        yield "\n".join(lines)


def get_results_controller(session: ViewerSession) -> ResultsController:
    """Return the controller of a session; create it at first use."""
    return get_component(session, ResultsController)
