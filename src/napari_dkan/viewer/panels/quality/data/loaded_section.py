"""A measured section in the viewer: its data, its slide and its registration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .....spatial.spots import Spots
from ....session.slide_layer import ViewerSlide
from ....session.viewer_session import ViewerSession

if TYPE_CHECKING:
    from anndata import AnnData
    from napari.layers import Points

    from .....quality.registration_check import RegistrationCheck
    from .....spatial.coordinates import AffineTransform


SECTION_KEY = "napari-dkan measured"  # of a layer's metadata: what its measured section is

BY_FILES = "by the files"
BY_ARRAY = "by the spot array"
BY_COORDINATES = "by the spot coordinates"


def landmark_registration(count: int) -> str:
    return f"by {count} landmarks"


@dataclass(frozen=True)
class SectionCandidate:
    """A section that can be read.

    image : where its slide lies, as far as that can be told before reading; a given one wins
        over what the files say. read : the section as `expression.section` describes it.
    """

    name: str
    source: Path
    read: Callable[[], AnnData]
    image: Path | None = None


@dataclass(eq=False)
class LoadedSection:
    """A measured section.

    data : as `expression.section.build_section` describes it, but ``obsm['spatial']``,
        ``uns['image']`` and ``uns['mpp']`` are those of `slide` once it lies on one.
    own_xy : (N, 2) spot centres as they were read, in px of the section's own image.
    slide : None as long as no slide is open that it could lie on.
    registration : how its spots came to lie on the slide.
    layer : shows the measured values; deleting it removes the section.
    """

    name: str
    data: AnnData = field(repr=False)
    source: Path
    source_xy: NDArray[np.float64] = field(repr=False)
    source_image: Path | None
    source_mpp: float | None
    slide: ViewerSlide | None = None
    registration: str = ""
    placement: RegistrationCheck | None = None
    layer: Points | None = field(default=None, repr=False)

    def place_on(
        self, slide: ViewerSlide, affine: AffineTransform | None, registration: str
    ) -> None:
        """Lay the spots on a slide; affine takes its own px to the slide's, None leaves them."""
        data = self.data.copy()  # a job may be reading the one before
        data.obsm["spatial"] = self.source_xy if affine is None else affine.apply(self.source_xy)
        data.uns["image"] = slide.slide.location
        if slide.pixel_size is not None:
            data.uns["mpp"] = slide.mpp
            data.uns["mpp_origin"] = slide.pixel_size.origin
        self.data, self.slide, self.registration = data, slide, registration
        self.placement = None

    @property
    def xy(self) -> NDArray[np.float64]:
        """(N, 2) spot centres in level-0 px of the slide."""
        return np.asarray(self.data.obsm["spatial"], dtype=np.float64)

    def has_same_source(self, other: LoadedSection) -> bool:
        """Whether the other one was read from the same place."""
        return (self.name, self.source) == (other.name, other.source)

    def spots(self) -> Spots:
        """All of its spots, with counts or without."""
        from .....expression.label_scale import array_coords_from_section

        uns, array = self.data.uns, None
        if "array_row" in self.data.obs and "array_col" in self.data.obs:
            array = array_coords_from_section(self.data)
        return Spots(
            self.xy,
            array,
            tuple(map(str, self.data.obs_names)),
            parse_finite(uns.get("spot_diameter_um")),
            parse_finite(uns.get("spot_pitch_um")),
        )


def show_only_section(
    section: LoadedSection, others: Sequence[LoadedSection], session: ViewerSession
) -> None:
    """All slides lie at the same place of the canvas: show this section's and its spots on it."""
    if section.slide is None:
        return
    for slide in session.slides:
        slide.layer.visible = slide is section.slide
    for other in others:
        if other.layer is not None:
            other.layer.visible = other is section
    layers = session.viewer.layers
    if section.layer is not None and section.layer in layers:
        at = layers.index(section.layer)
        if at < layers.index(section.slide.layer):  # a slide opened later lies on top
            layers.move(at, len(layers))


def parse_finite(value: Any) -> float | None:
    """A finite number, else None: the files say NaN where they do not know."""
    try:
        made = float(value)
    except (TypeError, ValueError):
        return None
    return made if np.isfinite(made) else None
