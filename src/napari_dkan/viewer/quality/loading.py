"""Reading a measured section off the GUI thread, and finding out where it lies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import SpotsError
from ..session import OpenSlide
from .finding import find
from .placing import Where, is_slide, where_to_lie
from .section import Choice, LoadedSection, number

if TYPE_CHECKING:
    from napari.layers import Points


@dataclass(frozen=True)
class Order:
    """What to read.

    choice : one section of what the paths hold, None to find out. layer : the empty layer of a
    drop, which the section takes over. section : one that was read before and waits for a slide.
    """

    paths: tuple[Path, ...]
    image: Path | None = None
    choice: Choice | None = None
    layer: Points | None = None
    section: LoadedSection | None = None

    @property
    def name(self) -> str:
        return self.choice.name if self.choice is not None else self.paths[0].name


@dataclass(frozen=True)
class Offered:
    """All sections of what is being read, when there are several."""

    choices: tuple[Choice, ...]


@dataclass(frozen=True)
class Read:
    """A section that was read, and where it should lie (None: no slide is open for it)."""

    section: LoadedSection
    where: Where | None


def loading(
    order: Order, slides: Sequence[OpenSlide], current: OpenSlide | None
) -> Iterator[Offered | Read]:
    """Read the ordered section; see `Quality.load`. Raises DkanError."""
    if order.section is not None:
        yield Read(order.section, where_to_lie(order.section, slides, current, may_open=False))
        return
    choice = order.choice
    if choice is None:
        choices = find(order.paths, order.image)
        choice = pick(choices, slides, current)
        yield Offered(choices if len(choices) > 1 else ())
    section = read(choice)
    yield Read(section, where_to_lie(section, slides, current))


def pick(
    choices: Sequence[Choice], slides: Sequence[OpenSlide], current: OpenSlide | None
) -> Choice:
    """Of several sections the one whose image is open, the chosen slide before the others."""
    ordered = [*([] if current is None else [current]), *slides]
    for slide in ordered:
        for choice in choices:
            if choice.image is not None and is_slide(choice.image, slide):
                return choice
    for slide in ordered:
        for choice in choices:
            if choice.name in (slide.slide.name, slide.layer.name):
                return choice
    return choices[0]


def read(choice: Choice) -> LoadedSection:
    """Raises SpotsError in words that name the file."""
    try:
        data = choice.read()
    except OSError as error:
        raise SpotsError(f"{choice.source} cannot be read ({error.strerror or error}).") from error
    named = str(data.uns.get("image") or "")
    image = Path(named) if named and Path(named).exists() else None
    xy = data.obsm["spatial"].copy()
    return LoadedSection(choice.name, data, choice.source, xy, image, number(data.uns.get("mpp")))
