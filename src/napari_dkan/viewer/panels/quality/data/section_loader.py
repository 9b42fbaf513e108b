"""Load measured sections one after another in a worker thread and keep them in step with the layer list."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakSet

from napari.layers import Layer, Points
from napari.utils.notifications import show_warning

from .....errors import SpotsError
from ....session.slide_layer import ViewerSlide
from ....session.viewer_session import ViewerSession
from ....widgets.signal_connections import SignalConnections
from ....worker import JobFailure, JobRunner
from .loaded_section import SECTION_KEY, LoadedSection, SectionCandidate, parse_finite
from .section_finder import find_candidates
from .slide_matching import SlideMatch, is_same_slide, match_slide

if TYPE_CHECKING:
    from ..quality_controller import QualityController


@dataclass(frozen=True)
class LoadRequest:
    """What to read.

    choice : one section of what the paths hold, None to find out. layer : the empty layer of a
    drop, which the section takes over. section : one that was read before and waits for a slide.
    """

    paths: tuple[Path, ...]
    image: Path | None = None
    candidate: SectionCandidate | None = None
    layer: Points | None = None
    section: LoadedSection | None = None

    @property
    def name(self) -> str:
        return self.candidate.name if self.candidate is not None else self.paths[0].name


@dataclass(frozen=True)
class SectionCandidates:
    """All sections of what is being read, when there are several."""

    candidates: tuple[SectionCandidate, ...]


@dataclass(frozen=True)
class LoadResult:
    """A section that was read, and where it should lie (None: no slide is open for it)."""

    section: LoadedSection
    match: SlideMatch | None


def load_requested_section(
    request: LoadRequest, slides: Sequence[ViewerSlide], current: ViewerSlide | None
) -> Iterator[SectionCandidates | LoadResult]:
    """Read the ordered section; see `Quality.load`. Raises DkanError."""
    if request.section is not None:
        yield LoadResult(
            request.section, match_slide(request.section, slides, current, allow_open=False)
        )
        return
    choice = request.candidate
    if choice is None:
        choices = find_candidates(request.paths, request.image)
        choice = choose_candidate(choices, slides, current)
        yield SectionCandidates(choices if len(choices) > 1 else ())
    section = read_section(choice)
    yield LoadResult(section, match_slide(section, slides, current))


def choose_candidate(
    candidates: Sequence[SectionCandidate],
    slides: Sequence[ViewerSlide],
    current: ViewerSlide | None,
) -> SectionCandidate:
    """Of several sections the one whose image is open, the chosen slide before the others."""
    ordered = [*([] if current is None else [current]), *slides]
    for slide in ordered:
        for choice in candidates:
            if choice.image is not None and is_same_slide(choice.image, slide):
                return choice
    for slide in ordered:
        for choice in candidates:
            if choice.name in (slide.slide.name, slide.layer.name):
                return choice
    return candidates[0]


def read_section(candidate: SectionCandidate) -> LoadedSection:
    """Raises SpotsError in words that name the file."""
    try:
        data = candidate.read()
    except OSError as error:
        raise SpotsError(
            f"{candidate.source} cannot be read ({error.strerror or error})."
        ) from error
    named = str(data.uns.get("image") or "")
    image = Path(named) if named and Path(named).exists() else None
    xy = data.obsm["spatial"].copy()
    return LoadedSection(
        candidate.name, data, candidate.source, xy, image, parse_finite(data.uns.get("mpp"))
    )


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
        self._session, self._on_candidates, self._on_loaded, self._on_progress = (
            session,
            on_candidates,
            on_loaded,
            on_progress,
        )
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
        self._runner.start(
            lambda: load_requested_section(order, slides, current),
            self._handle_item,
            self._handle_end,
        )
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
            self._session.message.show(failure.message, warning=True)
            if order is not None and order.layer is not None:
                self.remove_empty_layer(order)
                show_warning(failure.message)  # it was dropped: there may be no panel
        self._load_next()


class SectionLayerSync:
    """Tells the state what a person's dropping, closing and deleting means for it."""

    def __init__(
        self, quality: QualityController, connections: SignalConnections, loader: SectionLoader
    ) -> None:
        self._quality, self._loader = quality, loader
        self._requested_layers: WeakSet[Layer] = WeakSet()
        layers = quality.session.viewer.layers
        connections.connect(self._on_layers_changed, layers.events.inserted, layers.events.removed)
        connections.connect(self._on_slides_changed, quality.session.slides_changed)
        self._on_layers_changed()

    def _on_layers_changed(self, event: object = None) -> None:
        layers = list(self._quality.session.viewer.layers)
        for layer in layers:
            given = layer.metadata.get(SECTION_KEY) if isinstance(layer, Points) else None
            if isinstance(given, LoadRequest) and layer not in self._requested_layers:
                self._requested_layers.add(layer)
                self._loader.enqueue(replace(given, layer=layer))
        for section in list(self._quality.sections):
            if section.layer is not None and section.layer not in layers:
                section.layer = None
                self._quality.remove_section(section)

    def _on_slides_changed(self) -> None:
        """A section without its slide waits for it; a slide that opens may be the one."""
        session = self._quality.session
        for section in self._quality.sections:
            if section.slide is not None and section.slide not in session.slides:
                self._quality.detach_slide(section)
        for section in self._quality.sections:
            if section.slide is None and session.slide is not None:
                self._loader.enqueue(LoadRequest((section.source,), section=section))
