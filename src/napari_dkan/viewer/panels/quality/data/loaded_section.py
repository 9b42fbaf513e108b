"""A measured section in the viewer: its data, its slide and its registration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .....slide.pixel_size import SizeClaim
from .....spatial.spots import Spots
from ....session.slide_layer import ViewerSlide
from ....session.viewer_session import ViewerSession

if TYPE_CHECKING:
    from anndata import AnnData
    from napari.layers import Points

    from .....quality.registration_check import RegistrationCheck
    from .....spatial.coordinates import AffineTransform


SECTION_KEY = "napari-dkan measured"  # of a layer's metadata: its section, or a LoadRequest

BY_FILES = "by the files"
BY_ARRAY = "by the spot array"
BY_COORDINATES = "by the spot coordinates"


def landmark_registration(count: int) -> str:
    """Describe a registration by this many landmarks."""
    return f"by {count} landmarks"


@dataclass(frozen=True)
class SectionCandidate:
    """A section that can be read.

    Attributes
    ----------
    name : str
    source : Path
    read : callable
        Returns the section in the form that `expression.section.build_section` describes.
    image : Path or None
        Slide of the section, if known before reading; one given by the user takes precedence
        over what the files state.
    read_at_mpp : callable or None
        The same with the um per px of its slide, where positions may be in micrometres.
    """

    name: str
    source: Path
    read: Callable[[], AnnData]
    image: Path | None = None
    read_at_mpp: Callable[[float], AnnData] | None = None


@dataclass(eq=False)
class LoadedSection:
    """A measured section.

    Attributes
    ----------
    name : str
    data : AnnData
        In the form that `expression.section.build_section` describes, but ``obsm['spatial']``,
        ``uns['image']`` and ``uns['mpp']`` are those of `slide` once it is placed on one.
    source : Path
    source_xy : ndarray
        Spot centres as they were read, in px of the section's own image, (N, 2).
    source_image : Path or None
    source_mpp : float or None
        Micrometres per px of the section's own image.
    source_claims : tuple of SizeClaim
        What the section's files and its spot array say about that pixel size.
    slide : ViewerSlide or None
        None until a slide is open that the section belongs to.
    registration : str
        How the spots were placed on the slide.
    placement : RegistrationCheck or None
        Which spots are off the slide or its tissue.
    layer : Points or None
        Shows the measured values; deleting it removes the section.
    few_genes_refusal : str
        Why it is not used with the checkpoint: it measures few of its genes; "" if it does not.
    accepts_few_genes : bool
        The user wants it used all the same.
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
    source_claims: tuple[SizeClaim, ...] = ()
    few_genes_refusal: str = ""
    accepts_few_genes: bool = False

    def place_on(
        self, slide: ViewerSlide, affine: AffineTransform | None, registration: str
    ) -> None:
        """Place the spots on a slide.

        Parameters
        ----------
        slide
        affine
            From the section's own px to level-0 px of the slide; None: they are the same.
        registration
        """
        data = self.data.copy()  # a job may still be reading the previous one
        data.obsm["spatial"] = self.source_xy if affine is None else affine.apply(self.source_xy)
        data.uns["image"] = slide.slide.location
        if slide.pixel_size is not None:
            data.uns["mpp"] = slide.mpp
            data.uns["mpp_origin"] = slide.pixel_size.origin
        self.data, self.slide, self.registration = data, slide, registration
        self.placement = None

    @property
    def xy(self) -> NDArray[np.float64]:
        """Spot centres in level-0 px of the slide, (N, 2)."""
        return np.asarray(self.data.obsm["spatial"], dtype=np.float64)

    def has_same_source(self, other: LoadedSection) -> bool:
        """Return whether both sections were read from the same files."""
        return (self.name, self.source) == (other.name, other.source)

    def spots(self) -> Spots:
        """Return all spots, also those without counts."""
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

    def total_counts_log10(self) -> NDArray[np.float32]:
        """Return log10(1 + counts of all genes) of each spot, (N,)."""
        return np.log10(1 + np.asarray(self.data.X.sum(axis=1), np.float32).ravel())


def show_only_section(
    section: LoadedSection, others: Sequence[LoadedSection], session: ViewerSession
) -> None:
    """Show the slide and the spots of this section only, since all slides overlap on the canvas."""
    if section.slide is None:
        return
    for slide in session.slides:
        slide.layer.visible = slide is section.slide
    for other in others:
        if other.layer is not None:
            other.layer.visible = other is section
    layers = session.viewer.layers
    if section.layer is not None and section.layer in layers:
        index = layers.index(section.layer)
        if index < layers.index(section.slide.layer):  # the slide was opened after the section
            layers.move(index, len(layers))


def parse_finite(value: Any) -> float | None:
    """Return a finite number, else None; files contain NaN for an unknown value."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None
