"""Match a measured section to a slide by its files, its coordinates or its spot array."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from napari.layers import Image
from numpy.typing import NDArray

from .....errors import SlideError
from .....expression.readers.image_files import image_stem, is_image_of_section
from .....inference.section_pixel_size import find_qupath_mpp
from .....slide import PixelSize, Slide, open_slide
from .....slide.pixel_size import SizeClaim, resolve_pixel_size
from .....spatial.coordinates import AffineTransform
from ....session.pixel_size_sources import is_uncertain, recall_pixel_size
from ....session.slide_arrangement import fit_slide
from ....session.slide_layer import ViewerSlide, make_slide_layer
from ....session.viewer_session import ViewerSession
from .loaded_section import BY_ARRAY, BY_COORDINATES, BY_FILES, LoadedSection

_SIZE_TOLERANCE = 1.05  # pixel sizes that differ by less than this factor are the same
_MIN_ENLARGEMENT = 1.5  # of spots that lie on the slide as they are
_ADVICE = (
    "open the slide, enter the right one in the panel DKAN: predict, and load the section again"
)
_SHAPE_TOLERANCE = 1.01  # of the two sides of a rescaled image
_SAME_SCALE_TOLERANCE = 1.001


@dataclass(frozen=True)
class SlideMatch:
    """The slide of a section.

    Attributes
    ----------
    slide : ViewerSlide or Slide
        An open slide, or one to open.
    affine : AffineTransform or None
        From the section's own px to the slide's; None where they are the same.
    registration : str
    note : str
        A sentence for the user, or "".
    """

    slide: ViewerSlide | Slide
    affine: AffineTransform | None
    registration: str
    note: str = ""


def match_slide(
    section: LoadedSection,
    slides: Sequence[ViewerSlide],
    current: ViewerSlide | None,
    allow_open: bool = True,
) -> SlideMatch | None:
    """Find the slide of a section; call it in a worker thread.

    It is the image that the section's files name, or, if they name none, the chosen slide by the
    coordinates of the spots.

    Parameters
    ----------
    section
    slides, current
        Open slides and the chosen one.
    allow_open
        Whether the image of the section may be opened.

    Returns
    -------
    SlideMatch or None

    Raises
    ------
    SlideError
        The image that the section names cannot be opened, or the pixel sizes of slide and section
        contradict each other.
    """
    match = _find_match(section, slides, current, allow_open)
    if match is not None:
        try:
            _check_pixel_sizes(section, match)
        except SlideError:
            if isinstance(match.slide, Slide):
                match.slide.close()
            raise
    return match


def _check_pixel_sizes(section: LoadedSection, match: SlideMatch) -> None:
    """Raise SlideError if slide and section contradict each other, unless the user decided."""
    slide = match.slide
    if isinstance(slide, ViewerSlide):
        label, size = slide.slide.label, slide.pixel_size
    else:
        label, size = slide.label, recall_pixel_size(slide) or slide.pixel_size
    scale = 1.0 if match.affine is None else match.affine.scale
    claims = [SizeClaim(mpp / scale, origin) for mpp, origin in section.source_claims]
    resolve_pixel_size(label, size, claims, advice=_ADVICE)


def _find_match(
    section: LoadedSection,
    slides: Sequence[ViewerSlide],
    current: ViewerSlide | None,
    allow_open: bool,
) -> SlideMatch | None:
    image = section.source_image
    if image is None:
        return None if current is None else _match_by_coordinates(section, current)
    for slide in [*([] if current is None else [current]), *slides]:
        if is_same_slide(image, slide):
            return SlideMatch(slide, None, BY_FILES)
    if current is not None and _has_related_name(section, image, current):
        match = _match_rescaled(section, image, current)
        if match is not None:
            return match
    if not allow_open:
        return None
    note = (
        ""
        if current is None
        else (
            f"{section.name} lies on its own image, {image.name}, which was opened. To compare on "
            "another scan of it, choose that slide and register the spots there."
        )
    )
    return SlideMatch(open_slide(image), None, BY_FILES, note)


def is_same_slide(image: Path, slide: ViewerSlide) -> bool:
    """Return whether a file is the slide: the same file, or one with the same content.

    A label or macro that was chosen of the file is not.
    """
    if slide.slide.chosen_image:
        return False
    with suppress(OSError):
        if slide.slide.path is not None and image.resolve() == slide.slide.path.resolve():
            return True
    try:
        with open_slide(image) as opened:
            return opened.fingerprint() == slide.slide.fingerprint()
    except SlideError:
        return False


def find_section_mpp(
    image: Path | None, slides: Sequence[ViewerSlide], current: ViewerSlide | None
) -> float | None:
    """Return the um per px in which QuPath measured a section; call it in a worker thread.

    It is that of `image`, which need not be open, or of the chosen slide without one; None where
    it is not known.

    Raises
    ------
    SlideError
        The image cannot be opened.
    """
    slide = current
    if image is not None:
        slide = next((s for s in slides if is_same_slide(image, s)), None)
        if slide is None:
            with open_slide(image) as opened:
                known = recall_pixel_size(opened)
                return find_qupath_mpp(opened.pixel_size, None if known is None else known.mpp)
    if slide is None or slide.pixel_size is None:
        return None
    return find_qupath_mpp(slide.slide.pixel_size, slide.mpp)


def place_on_slide(session: ViewerSession, section: LoadedSection, match: SlideMatch) -> str:
    """Place a section on its slide, which is opened if necessary; return a note, or ""."""
    slide = match.slide
    if isinstance(slide, Slide):
        slide = _add_slide(session, section, slide)
    if is_uncertain(slide.pixel_size) and section.source_mpp is not None:
        scale = 1.0 if match.affine is None else match.affine.scale
        origin = str(section.data.uns.get("mpp_origin") or "spot array")
        session.viewer_slides.set_pixel_size(slide, PixelSize(section.source_mpp / scale, origin))
        fit_slide(session.viewer, slide)  # it has another size in the world
    section.place_on(slide, match.affine, match.registration)
    return match.note


def _has_related_name(section: LoadedSection, image: Path, slide: ViewerSlide) -> bool:
    """Whether a slide is named like the section or its image: it may be another scan."""
    path = slide.slide.path or Path(slide.slide.label)
    return (
        image_stem(path) == image_stem(image)
        or image_stem(path) == section.name
        or is_image_of_section(path, section.name)
    )


def _match_rescaled(section: LoadedSection, image: Path, slide: ViewerSlide) -> SlideMatch | None:
    """Match a slide that is the section's image in another size; None for another shape."""
    with open_slide(image) as source:
        across, down = slide.slide.width / source.width, slide.slide.height / source.height
    if max(across, down) / min(across, down) > _SHAPE_TOLERANCE:
        return None
    if max(across, 1 / across) < _SAME_SCALE_TOLERANCE:
        return SlideMatch(slide, None, BY_COORDINATES)
    return SlideMatch(
        slide, _make_scaling(across), BY_COORDINATES, _describe_scaling(section, slide, across)
    )


def _match_by_coordinates(section: LoadedSection, slide: ViewerSlide) -> SlideMatch:
    """Take the coordinates as px of the slide, scaled if the spot array has another pixel size."""
    source_mpp, size = section.source_mpp, slide.pixel_size
    if source_mpp is None or size is None:
        return SlideMatch(slide, None, BY_COORDINATES)
    factor = source_mpp / size.mpp
    if max(factor, 1 / factor) < _SIZE_TOLERANCE:
        return SlideMatch(slide, None, BY_COORDINATES)
    if factor < _MIN_ENLARGEMENT and _is_inside_slide(section.source_xy, slide):
        return SlideMatch(slide, None, BY_COORDINATES)  # one of the pixel sizes is wrong
    if not _is_inside_slide(section.source_xy * factor, slide):
        return SlideMatch(slide, None, BY_COORDINATES)
    return SlideMatch(
        slide, _make_scaling(factor), BY_ARRAY, _describe_scaling(section, slide, factor)
    )


def _describe_scaling(section: LoadedSection, slide: ViewerSlide, factor: float) -> str:
    return (
        f"The coordinates of {section.name} are those of an image {1 / factor:.3g} times as large "
        f"as {slide.slide.label}; its spots were scaled to it. Look whether they fit."
    )


def _make_scaling(factor: float) -> AffineTransform:
    return AffineTransform(np.array([[factor, 0.0, 0.0], [0.0, factor, 0.0]]))


def _is_inside_slide(xy: NDArray[np.float64], slide: ViewerSlide) -> bool:
    x, y = xy.T
    return bool(((x >= 0) & (y >= 0) & (x < slide.slide.width) & (y < slide.slide.height)).all())


def _add_slide(session: ViewerSession, section: LoadedSection, slide: Slide) -> ViewerSlide:
    size = recall_pixel_size(slide) or slide.pixel_size
    if is_uncertain(size) and section.source_mpp is not None:
        size = PixelSize(
            section.source_mpp, str(section.data.uns.get("mpp_origin") or "spot array")
        )
    slide.prefetch()
    pixels, options, _ = make_slide_layer(slide, size)
    layer = Image(pixels, **options)
    session.viewer.layers.insert(0, layer)  # existing spots stay on top
    added = next(s for s in session.slides if s.layer is layer)
    fit_slide(session.viewer, added)
    return added
