"""Load measured sections one after another and follow changes of the layer list."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakSet

from napari.layers import Layer, Points
from napari.utils.notifications import show_warning

from .....errors import MissingPixelSizeError, SeveralSectionsError, SpotsError
from .....inference.section_pixel_size import section_size_claims
from ....session.slide_layer import ViewerSlide
from ....session.viewer_session import ViewerSession
from ....widgets.signal_connections import SignalConnections
from ....worker import JobFailure, JobRunner
from .loaded_section import SECTION_KEY, LoadedSection, SectionCandidate, parse_finite
from .quality_model import QualityModel
from .section_finder import find_candidates
from .slide_matching import SlideMatch, find_section_mpp, is_same_slide, match_slide

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class LoadRequest:
    """What to read.

    Attributes
    ----------
    paths : tuple of Path
    image : Path or None
    candidate : SectionCandidate or None
        One of the sections in `paths`; None: choose one.
    layer : Points or None
        The empty layer of a dropped file, which becomes the layer of the section.
    section : LoadedSection or None
        A section that was read before and whose slide may now be open.
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
    """All sections in the paths that are being read, when there are several."""

    candidates: tuple[SectionCandidate, ...]


@dataclass(frozen=True)
class LoadResult:
    """A section that was read, and its slide (None: no slide is open for it)."""

    section: LoadedSection
    match: SlideMatch | None


def load_requested_section(
    request: LoadRequest, slides: Sequence[ViewerSlide], current: ViewerSlide | None
) -> Iterator[SectionCandidates | LoadResult]:
    """Read the requested section and match it to a slide; see `QualityController.load`.

    Raises
    ------
    DkanError
    """
    if request.section is not None:
        yield LoadResult(
            request.section, match_slide(request.section, slides, current, allow_open=False)
        )
        return
    candidate = request.candidate
    if candidate is None:
        candidates = find_candidates(request.paths, request.image)
        candidate = choose_candidate(candidates, slides, current)
        yield SectionCandidates(candidates if len(candidates) > 1 else ())
    section = read_section(candidate, partial(find_section_mpp, candidate.image, slides, current))
    yield LoadResult(section, match_slide(section, slides, current))


def choose_candidate(
    candidates: Sequence[SectionCandidate],
    slides: Sequence[ViewerSlide],
    current: ViewerSlide | None,
) -> SectionCandidate:
    """Choose the section whose image is open, that of the chosen slide before the others."""
    ordered = [*([] if current is None else [current]), *slides]
    for slide in ordered:
        for candidate in candidates:
            if candidate.image is not None and is_same_slide(candidate.image, slide):
                return candidate
    for slide in ordered:
        for candidate in candidates:
            if candidate.name in (slide.slide.name, slide.layer.name):
                return candidate
    return candidates[0]


def read_section(
    candidate: SectionCandidate, find_mpp: Callable[[], float | None] = lambda: None
) -> LoadedSection:
    """Read a section.

    Parameters
    ----------
    candidate
    find_mpp
        Returns the um per px of its slide; called if positions are in micrometres.

    Raises
    ------
    SpotsError
        The file cannot be read; the message names it.
    SlideError
        Its slide cannot be opened.
    """
    try:
        data = _read_in_px(candidate, find_mpp)
    except OSError as error:
        raise SpotsError(
            f"{candidate.source} cannot be read ({error.strerror or error})."
        ) from error
    image_path = str(data.uns.get("image") or "")
    image = Path(image_path) if image_path and Path(image_path).exists() else None
    xy = data.obsm["spatial"].copy()
    return LoadedSection(
        candidate.name,
        data,
        candidate.source,
        xy,
        image,
        parse_finite(data.uns.get("mpp")),
        source_claims=tuple(section_size_claims(data.uns)),
    )


def _read_in_px(candidate: SectionCandidate, find_mpp: Callable[[], float | None]) -> AnnData:
    try:
        return candidate.read()
    except SeveralSectionsError as error:
        raise SpotsError(
            f"{error.finding} Write one file for each section, and load it with the counts."
        ) from error
    except MissingPixelSizeError as error:
        if candidate.read_at_mpp is None:
            raise SpotsError(
                f"{error.finding} Write the positions in level-0 pixels of the slide."
            ) from error
        mpp = find_mpp()
        if mpp is None:
            raise SpotsError(
                f"{error.finding} Open the slide, set it in the panel DKAN: predict, under Slide, "
                "and load the section again."
            ) from error
        return candidate.read_at_mpp(mpp)


class SectionLoader:
    """Queue of load requests, executed in a worker thread.

    Parameters
    ----------
    session
    on_candidates
        Called with the sections to choose from.
    on_loaded
        Called with each section that was read.
    on_progress
        Called with a description of what is being done, "" at the end.
    """

    def __init__(
        self,
        session: ViewerSession,
        on_candidates: Callable[[SectionCandidates], None],
        on_loaded: Callable[[LoadRequest, LoadResult], None],
        on_progress: Callable[[str], None],
    ) -> None:
        self._session, self._on_progress = session, on_progress
        self._on_candidates, self._on_loaded = on_candidates, on_loaded
        self._runner = JobRunner("measured ST")
        self._requests: deque[LoadRequest] = deque()
        self._current_request: LoadRequest | None = None

    @property
    def busy(self) -> bool:
        return self._runner.busy

    def enqueue(self, request: LoadRequest) -> None:
        """Read this after all earlier requests."""
        self._requests.append(request)
        self._load_next()

    def cancel(self) -> None:
        """Drop all requests and remove their empty layers."""
        pending = [r for r in (self._current_request, *self._requests) if r is not None]
        self._requests.clear()
        self._current_request = None
        self._runner.cancel()
        for request in pending:
            self.remove_empty_layer(request)

    def close(self) -> None:
        self.cancel()
        self._runner.wait()

    def remove_empty_layer(self, request: LoadRequest) -> None:
        """Remove the layer of a dropped file that stays empty."""
        self._session.layers.remove(request.layer)

    def _load_next(self) -> None:
        if self._runner.busy or not self._requests:
            return
        request = self._current_request = self._requests.popleft()
        slides, current = list(self._session.slides), self._session.slide
        self._runner.start(
            lambda: load_requested_section(request, slides, current),
            self._handle_item,
            self._handle_end,
        )
        self._on_progress(f"Reading {request.name}")

    def _handle_item(self, item: SectionCandidates | LoadResult) -> None:
        request = self._current_request
        if request is None:
            return
        if isinstance(item, SectionCandidates):
            self._on_candidates(item)
        elif request.layer is None or request.layer in self._session.viewer.layers:
            self._on_loaded(request, item)  # else the user has deleted its empty layer

    def _handle_end(self, failure: JobFailure | None) -> None:
        request, self._current_request = self._current_request, None
        self._on_progress("")
        if failure is not None:
            self._session.message.show(failure.message, warning=True)
            if request is not None and request.layer is not None:
                self.remove_empty_layer(request)
                show_warning(failure.message)  # a file was dropped: no panel may be open
        self._load_next()


class SectionLayerSync:
    """Follows dropped files, closed slides and deleted layers."""

    def __init__(
        self,
        model: QualityModel,
        connections: SignalConnections,
        loader: SectionLoader,
        on_section_removed: Callable[[LoadedSection], None],
        on_slide_closed: Callable[[LoadedSection], None],
    ) -> None:
        self._model, self._loader = model, loader
        self._on_section_removed, self._on_slide_closed = on_section_removed, on_slide_closed
        self._requested_layers: WeakSet[Layer] = WeakSet()
        layers = model.session.viewer.layers
        connections.connect(self._on_layers_changed, layers.events.inserted, layers.events.removed)
        connections.connect(self._on_slides_changed, model.session.slides_changed)
        self._on_layers_changed()

    def _on_layers_changed(self, event: object = None) -> None:
        layers = list(self._model.session.viewer.layers)
        for layer in layers:
            request = layer.metadata.get(SECTION_KEY) if isinstance(layer, Points) else None
            if isinstance(request, LoadRequest) and layer not in self._requested_layers:
                self._requested_layers.add(layer)
                self._loader.enqueue(replace(request, layer=layer))
        for section in list(self._model.sections):
            if section.layer is not None and section.layer not in layers:
                section.layer = None
                self._on_section_removed(section)

    def _on_slides_changed(self) -> None:
        """Detach sections from closed slides, and look for the slides of the others."""
        model, session = self._model, self._model.session
        for section in model.sections:
            if section.slide is not None and section.slide not in session.slides:
                self._on_slide_closed(section)
        for section in model.sections:
            if section.slide is None and session.slide is not None:
                self._loader.enqueue(LoadRequest((section.source,), section=section))
