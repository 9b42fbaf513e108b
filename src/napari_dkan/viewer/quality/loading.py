"""Reading a measured section off the GUI thread, and finding out where it lies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import SpotsError
from ..session import ViewerSlide
from .finding import find_candidates
from .placing import SlideMatch, is_same_slide, match_slide
from .section import SectionCandidate, LoadedSection, parse_finite

if TYPE_CHECKING:
    from napari.layers import Points


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
        yield LoadResult(request.section, match_slide(request.section, slides, current, allow_open=False))
        return
    choice = request.candidate
    if choice is None:
        choices = find_candidates(request.paths, request.image)
        choice = choose_candidate(choices, slides, current)
        yield SectionCandidates(choices if len(choices) > 1 else ())
    section = read_section(choice)
    yield LoadResult(section, match_slide(section, slides, current))


def choose_candidate(
    candidates: Sequence[SectionCandidate], slides: Sequence[ViewerSlide], current: ViewerSlide | None
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
        raise SpotsError(f"{candidate.source} cannot be read ({error.strerror or error}).") from error
    named = str(data.uns.get("image") or "")
    image = Path(named) if named and Path(named).exists() else None
    xy = data.obsm["spatial"].copy()
    return LoadedSection(candidate.name, data, candidate.source, xy, image, parse_finite(data.uns.get("mpp")))
