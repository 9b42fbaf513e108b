"""On which slide a measured section lies, and where: by its files, coordinates or spot array."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Image

from ...errors import SlideError
from ...expression.imagefile import called, stem
from ...slide import PixelSize, Slide, open_slide
from ...spatial.landmarks import Affine
from ..pixel_sizes import unsure
from ..session import OpenSlide, Session
from ..slides import slide_layer_data
from .section import BY_ARRAY, BY_COORDINATES, BY_FILES, LoadedSection

if TYPE_CHECKING:
    from collections.abc import Iterable

_AGREES = 1.05  # pixel sizes, or sides of an image, closer than this factor are the same


@dataclass(frozen=True)
class Where:
    """Where a section lies.

    slide : an open slide, or one to open. affine : from the section's own px to the slide's,
    None where they are the same. note : a sentence for the person, or "".
    """

    slide: OpenSlide | Slide
    affine: Affine | None
    how: str
    note: str = ""


def where_to_lie(
    section: LoadedSection,
    slides: Sequence[OpenSlide],
    current: OpenSlide | None,
    may_open: bool = True,
) -> Where | None:
    """The slide that the section's files name, where it is open or can be opened; else the
    chosen slide, by the spots' coordinates. None when there is none. Call it in a thread.

    Raises SlideError when the image that the section names cannot be opened.
    """
    image = section.own_image
    if image is None:
        return None if current is None else _by_coordinates(section, current)
    for slide in [*([] if current is None else [current]), *slides]:
        if is_slide(image, slide):
            return Where(slide, None, BY_FILES)
    if current is not None and _related(section, image, current):
        found = _scaled(section, image, current)
        if found is not None:
            return found
    if not may_open:
        return None
    note = (
        ""
        if current is None
        else (
            f"{section.name} lies on its own image, {image.name}, which was opened. To compare on "
            "another scan of it, choose that slide and register the spots there."
        )
    )
    return Where(open_slide(image), None, BY_FILES, note)


def is_slide(image: Path, slide: OpenSlide) -> bool:
    """Whether a file is the slide: the same file, or one of the same content."""
    with suppress(OSError):
        if slide.slide.path is not None and image.resolve() == slide.slide.path.resolve():
            return True
    try:
        with open_slide(image) as opened:
            return opened.fingerprint() == slide.slide.fingerprint()
    except SlideError:
        return False


def lay(session: Session, section: LoadedSection, where: Where) -> str:
    """Put the section on its slide, opening that where it is not open; a note, or ""."""
    slide = where.slide
    if isinstance(slide, Slide):
        slide = _opened(session, section, slide)
    if unsure(slide.pixel_size) and section.own_mpp is not None:
        scale = 1.0 if where.affine is None else where.affine.scale
        origin = str(section.data.uns.get("mpp_origin") or "spot array")
        session.scale_slide(slide, PixelSize(section.own_mpp / scale, origin))
        session.viewer.reset_view()  # it is another size in the world now
    section.put(slide, where.affine, where.how)
    return where.note


def _related(section: LoadedSection, image: Path, slide: OpenSlide) -> bool:
    """Whether a slide is called like the section or its image: another scan of it."""
    path = slide.slide.path or Path(slide.slide.label)
    return stem(path) == stem(image) or stem(path) == section.name or called(path, section.name)


def _scaled(section: LoadedSection, image: Path, slide: OpenSlide) -> Where | None:
    """The same picture in another size, told by its sides; None where they are others."""
    with open_slide(image) as own:
        across, down = slide.slide.width / own.width, slide.slide.height / own.height
    if max(across, down) / min(across, down) > 1.01:
        return None
    if max(across, 1 / across) < 1.001:
        return Where(slide, None, BY_COORDINATES)
    return Where(slide, _scale(across), BY_COORDINATES, _scaled_note(section, slide, across))


def _by_coordinates(section: LoadedSection, slide: OpenSlide) -> Where:
    """As they stand; scaled where the spot array gives the coordinates another pixel size."""
    own, size = section.own_mpp, slide.pixel_size
    if own is None or size is None or max(own / size.mpp, size.mpp / own) < _AGREES:
        return Where(slide, None, BY_COORDINATES)
    factor = own / size.mpp
    if not _inside(section.own_xy * factor, slide):
        return Where(slide, None, BY_COORDINATES)
    return Where(slide, _scale(factor), BY_ARRAY, _scaled_note(section, slide, factor))


def _scaled_note(section: LoadedSection, slide: OpenSlide, factor: float) -> str:
    return (
        f"The coordinates of {section.name} are those of an image {1 / factor:.3g} times as large "
        f"as {slide.slide.label}; its spots were scaled to it. Look whether they fit."
    )


def _scale(factor: float) -> Affine:
    return Affine(np.array([[factor, 0.0, 0.0], [0.0, factor, 0.0]]))


def _inside(xy: Iterable, slide: OpenSlide) -> bool:
    x, y = np.asarray(xy).T
    size = slide.slide
    return bool(((x >= 0) & (y >= 0) & (x < size.width) & (y < size.height)).all())


def _opened(session: Session, section: LoadedSection, slide: Slide) -> OpenSlide:
    size = slide.pixel_size
    if unsure(size) and section.own_mpp is not None:
        size = PixelSize(section.own_mpp, str(section.data.uns.get("mpp_origin") or "spot array"))
    slide.prefetch()
    pixels, options, _ = slide_layer_data(slide, size)
    layer = Image(pixels, **options)
    layers = session.viewer.layers
    layers.insert(0, layer)  # spots that are there already stay on top
    session.viewer.reset_view()
    return next(s for s in session.slides if s.layer is layer)
