"""The sections that are to be read, one after the other, off the GUI thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from napari.utils.notifications import show_warning

from ..lane import JobFailure, JobRunner
from ..session import ViewerSession
from .loading import SectionCandidates, LoadRequest, LoadResult, load_requested_section


class SectionLoader:
    """A queue of orders, each with its empty layer where it was dropped.

    offer : told the sections there are to choose from. take : told what was read. tell : told
    when there is something new to say about progress.
    """

    def __init__(
        self,
        session: ViewerSession,
        on_candidates: Callable[[SectionCandidates], None],
        on_loaded: Callable[[LoadRequest, LoadResult], None],
        on_progress: Callable[[str], None],
    ) -> None:
        self._session, self._on_candidates, self._on_loaded, self._on_progress = session, on_candidates, on_loaded, on_progress
        self._runner = JobRunner("measured ST")
        self._requests: deque[LoadRequest] = deque()
        self._current_request: LoadRequest | None = None

    @property
    def busy(self) -> bool:
        return self._runner.busy

    def enqueue(self, request: LoadRequest) -> None:
        """Read this when everything ordered before is read."""
        self._requests.append(request)
        self._load_next()

    def cancel(self) -> None:
        """Read none of what was ordered."""
        left = [o for o in (self._current_request, *self._requests) if o is not None]
        self._requests.clear()
        self._current_request = None
        self._runner.cancel()
        for order in left:
            self.remove_empty_layer(order)

    def close(self) -> None:
        self.cancel()
        self._runner.wait()

    def remove_empty_layer(self, request: LoadRequest) -> None:
        """Nothing comes into the layer of a drop: it goes."""
        layers = self._session.viewer.layers
        if request.layer is not None and request.layer in layers:
            layers.remove(request.layer)

    def _load_next(self) -> None:
        if self._runner.busy or not self._requests:
            return
        order = self._current_request = self._requests.popleft()
        slides, current = list(self._session.slides), self._session.slide
        self._runner.start(lambda: load_requested_section(order, slides, current), self._handle_item, self._handle_end)
        self._on_progress(f"Reading {order.name}")

    def _handle_item(self, item: SectionCandidates | LoadResult) -> None:
        order = self._current_request
        if order is None:
            return
        if isinstance(item, SectionCandidates):
            self._on_candidates(item)
        elif order.layer is None or order.layer in self._session.viewer.layers:
            self._on_loaded(order, item)  # else its empty layer was deleted meanwhile

    def _handle_end(self, failure: JobFailure | None) -> None:
        order, self._current_request = self._current_request, None
        self._on_progress("")
        if failure is not None:
            self._session.show_message(failure.message, warning=True)
            if order is not None and order.layer is not None:
                self.remove_empty_layer(order)
                show_warning(failure.message)  # it was dropped: there may be no panel
        self._load_next()
