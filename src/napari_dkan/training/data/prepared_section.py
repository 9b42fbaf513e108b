"""A section prepared for training: labels and the pixels around every spot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ...errors import SpotsError
from ...expression.label_scale import (
    LabelScale,
    PanelCounts,
    array_coords_from_section,
    labels_from_section,
)
from ...expression.panel import Panel
from ...expression.readers.read_account import ReadAccount
from ...inference.patch_features.patch_geometry import PatchReader, read_spot_pixels
from ...model.encoders.combined_encoder import CombinedEncoder
from ...model.encoders.encoder_spec import EncoderSpec
from ...model.encoders.stain_encoder import TILE_SIDE_PX, StainEncoder, compute_tile_statistics
from ...model.stain_normalization import StainProfile
from ...slide.scan_area import ScanArea
from ..train_settings import Augmentation
from .augmentation import (
    AugmentedView,
    StainTransform,
    sample_jitter,
    sample_view_transforms,
)
from .frozen_features import FeatureSource, FrozenEncoderPlaceholder, FrozenFeatures

if TYPE_CHECKING:
    from anndata import AnnData


NEIGHBOR_GRID = 5  # neighbours form a grid of 5 x 5 patches
AUGMENTATION_SEED = 2021  # views are part of the data, the same for every network


@dataclass(frozen=True)
class PreparedSection:
    """N labelled spots of one section, prepared for training.

    Attributes
    ----------
    labels
        (N, G) float32 on the label scale.
    positions
        (N, 2) integer array coordinates, x first.
    patches
        (N, 3, P, P) uint8, the target patches.
    statistics
        (N, 25, 104) stain statistics of the 5x5 tiles, row-major. They depend on no fit, so one
        pass over the slide serves every fold.
    mask
        (N, 25) bool, False where a tile leaves the slide.
    dropped_spots
        Names of the spots without a label.
    slide
        Fingerprint of the slide, by which a viewer recognizes a training slide.
    patient
        Name of the patient, "" when unknown.
    frozen_features
        Features of a frozen encoder, which replace those of the fitted stain encoder.
    views
        Augmented views of the same spots, for training only.
    stain
        Stain that the pixels were normalized to, None for no normalization.
    counts
        Raw counts (N, G) of the whole panel, of which the labels are made.
    account
        What was read of the section's files.
    """

    name: str
    labels: Tensor
    positions: Tensor
    patches: Tensor
    statistics: Tensor
    mask: Tensor
    mpp: float
    spot_pitch_um: float
    spot_diameter_um: float
    dropped_spots: tuple[str, ...] = ()
    slide: str = ""
    patient: str = ""
    frozen_features: FrozenFeatures | None = None
    views: tuple[AugmentedView, ...] = ()
    stain: StainProfile | None = None
    counts: PanelCounts | None = None
    account: ReadAccount = field(default_factory=ReadAccount)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class EncodedSection:
    """A section with the features of a tile encoder.

    Attributes
    ----------
    neighbor_features
        (N, 25, d) features of the 5x5 tiles, row-major.
    stored_target_features
        (N, d) features of the spots' own patches where they are stored separately.
    views
        The encoded views of the section.
    """

    section: PreparedSection
    neighbor_features: Tensor
    stored_target_features: Tensor | None = None
    views: tuple[EncodedSection, ...] = ()

    @property
    def target_features(self) -> Tensor:
        """(N, d) features of the spots' own patches; of the centre tile unless stored."""
        if self.stored_target_features is not None:
            return self.stored_target_features
        return self.neighbor_features[:, NEIGHBOR_GRID**2 // 2]


class SectionEncoder(Protocol):
    """The interface of a tile encoder that training uses."""

    @property
    def spec(self) -> EncoderSpec: ...

    def tensors(self) -> dict[str, Tensor]: ...

    def project(self, numbers: Tensor) -> Tensor: ...


def prepare_section(
    data: AnnData,
    patch_reader: PatchReader,
    panel: Panel,
    scale: LabelScale,
    patch_um: float,
    patch_px: int,
    features: FeatureSource | None = None,
    augmentation: Augmentation | None = None,
    scan_area: ScanArea | None = None,
    glass_option: str = "--whole-glass",
) -> PreparedSection:
    """Compute the labels of a section and read the pixels around every labelled spot.

    Parameters
    ----------
    data
        Raw counts with ``obsm['spatial']``, ``obs['array_row'|'array_col']`` and ``uns['mpp']``,
        ``uns['section']``, ``uns['spot_pitch_um']``, ``uns['spot_diameter_um']``.
    patch_um, patch_px
        Side of a patch in um and in pixels.
    features
        Source of frozen features; without it a stain encoder is fitted on the training sections.
    augmentation
        Views to read as well; stored features have none.
    scan_area
        Of the slide, to tell spots that count from the corner of the glass.
    glass_option
        The option of the command line that says so, for errors.

    Raises
    ------
    SpotsError
        When panel genes are missing, spots are off the slide, or stored features do not belong
        to the section's spots.
    """
    name = str(data.uns["section"])
    labels = labels_from_section(data, panel, scale)
    xy = np.asarray(data.obsm["spatial"], dtype=float)[labels.rows]
    coordinates = array_coords_from_section(data)[labels.rows]
    size = (patch_reader.width, patch_reader.height)
    is_off_slide = ((xy < 0) | (xy >= size)).any(axis=1)
    if is_off_slide.any():
        advice = "is it the image of another section?"
        if scan_area is not None and scan_area.fits_from_glass(xy):
            advice = f"they fit if they count from the corner of the glass: give {glass_option}."
        raise SpotsError(
            f"{int(is_off_slide.sum())} of {len(xy)} spots of {name} lie off its image "
            f"({size[0]} x {size[1]} px); {advice}"
        )
    if len(xy) < 2:
        raise SpotsError(
            f"{name} has a single labelled spot; a section takes at least two, since a "
            "correlation over one spot does not exist."
        )
    mpp = float(data.uns["mpp"])
    side = patch_um / mpp
    pixels = _read_spot_pixels(patch_reader, xy, side, patch_px, features)
    views = []
    if augmentation is not None and (features is None or features.for_view() is not None):
        for transform, rng in sample_view_transforms(augmentation, AUGMENTATION_SEED):
            shifted = xy + sample_jitter(augmentation, len(xy), rng) / mpp
            source = None if features is None else features.for_view()
            view = _read_spot_pixels(patch_reader, shifted, side, patch_px, source, transform)
            if source is not None:
                view = replace(view, tile_features=source.stack_features())
            views.append(view)
    return PreparedSection(
        name,
        torch.from_numpy(labels.values),
        torch.from_numpy(coordinates),
        pixels.patches,
        pixels.statistics,
        pixels.mask,
        mpp,
        float(data.uns["spot_pitch_um"]),
        float(data.uns["spot_diameter_um"]),
        labels.dropped_spots,
        patient=str(data.uns.get("patient", "")),
        frozen_features=None if features is None else features.select_features(data, labels.rows),
        views=tuple(views),
        counts=labels.counts,
    )


def _read_spot_pixels(
    patch_reader: PatchReader,
    xy: NDArray[np.float64],
    side: float,
    patch_px: int,
    features: FeatureSource | None = None,
    stain_transform: StainTransform | None = None,
) -> AugmentedView:
    """Read patches and compute statistics around every spot; `features` gets the tiles too."""
    tile_px = TILE_SIDE_PX if features is None else features.tile_px(TILE_SIDE_PX)
    patches = np.empty((len(xy), patch_px, patch_px, 3), dtype=np.uint8)
    statistics = []
    mask = np.empty((len(xy), NEIGHBOR_GRID**2), dtype=bool)
    for i, (x, y) in enumerate(xy):
        pixels = read_spot_pixels(patch_reader, x, y, side, NEIGHBOR_GRID, patch_px, tile_px)
        patch, window, mask[i] = pixels.target, pixels.tiles, pixels.mask
        if stain_transform is not None:
            patch, window = stain_transform(patch), stain_transform(window)
        patches[i] = patch
        tiles = torch.from_numpy(np.ascontiguousarray(window)).permute(0, 3, 1, 2)
        statistics.append(compute_tile_statistics(_resize_tiles(tiles)))
        if features is not None:
            features.add_tiles(tiles)
    return AugmentedView(
        torch.from_numpy(patches).permute(0, 3, 1, 2).contiguous(),
        torch.stack(statistics),
        torch.from_numpy(mask),
    )


def _resize_tiles(tiles: Tensor) -> Tensor:
    """Resize tiles to the side that the stain statistics are defined for."""
    if tiles.shape[-1] == TILE_SIDE_PX:
        return tiles
    return F.interpolate(tiles.float(), (TILE_SIDE_PX, TILE_SIDE_PX), mode="area")


def list_accounts(sections: Sequence[PreparedSection]) -> dict[str, Any]:
    """List what was read of the files of each section, by name, as plain JSON."""
    return {s.name: s.account.to_dict() for s in sections}


def select_genes(sections: Sequence[PreparedSection], rows: Sequence[int]) -> list[PreparedSection]:
    """Select the labels of some genes, by rows of the panel that they stay normalized over."""
    index = torch.as_tensor(list(rows), dtype=torch.long)
    return [replace(s, labels=s.labels[:, index].contiguous()) for s in sections]


def fit_section_encoder(
    sections: Sequence[PreparedSection], dimension: int, patch_um: float
) -> SectionEncoder:
    """Make the tile encoder of these sections.

    Returns
    -------
    For frozen features a placeholder of their encoder, or for an encoder of parts one that
    standardises them, else a stain encoder; both are fitted on the tiles within the slides.

    Raises
    ------
    SpotsError
        When sections hold features of different encoders.
    """
    specs = {None if s.frozen_features is None else s.frozen_features.spec for s in sections}
    if len(specs) > 1:
        names = ", ".join(sorted("stain statistics" if s is None else s.name for s in specs))
        raise SpotsError(
            f"The sections hold features of different encoders ({names}); "
            "prepare all of them with one."
        )
    (spec,) = specs
    if spec is not None:
        frozen = [(s.frozen_features, s.mask) for s in sections if s.frozen_features is not None]
        parts = frozen[0][0].parts
        if parts is None:
            return FrozenEncoderPlaceholder(spec)
        numbers = [features.neighbor_features[mask] for features, mask in frozen]
        return CombinedEncoder.fit(parts, torch.cat(numbers), patch_um)
    tiles = torch.cat([s.statistics[s.mask] for s in sections])
    return StainEncoder.fit_from_statistics(tiles, dimension, patch_um)


def encode_section(section: PreparedSection, encoder: SectionEncoder) -> EncodedSection:
    """Encode a section and its views.

    Features of a frozen encoder are used unchanged, numbers of an encoder's parts standardised.
    """
    frozen = section.frozen_features
    is_fitted = frozen is None or frozen.parts is not None

    def encode(tile_features: Tensor | None, statistics: Tensor) -> Tensor:
        numbers = statistics if tile_features is None else tile_features
        return encoder.project(numbers) if is_fitted else numbers

    views = []
    for view in section.views:
        pixels = {k: v for k, v in vars(view).items() if k != "tile_features"}
        views.append(
            EncodedSection(
                replace(section, **pixels, views=()), encode(view.tile_features, view.statistics)
            )
        )
    return EncodedSection(
        section,
        encode(None if frozen is None else frozen.neighbor_features, section.statistics),
        None if frozen is None or is_fitted else frozen.target_features,
        tuple(views),
    )
