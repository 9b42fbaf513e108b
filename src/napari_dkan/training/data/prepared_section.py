"""A section prepared for training: labels and the pixels around every spot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ...errors import SpotsError
from ...expression.label_scale import LabelScale, array_coords_from_section, labels_from_section
from ...expression.panel import Panel
from ...inference.patch_features.patch_geometry import PatchReader, read_spot_pixels
from ...model.encoders.encoder_spec import EncoderSpec
from ...model.encoders.stain_encoder import TILE_SIDE_PX, StainEncoder, compute_tile_statistics
from ...model.stain_normalization import StainProfile
from .augmentation import (
    Augmentation,
    AugmentedView,
    StainTransform,
    sample_jitter,
    sample_view_transforms,
)
from .frozen_features import FeatureSource, FrozenEncoderPlaceholder, FrozenFeatures

if TYPE_CHECKING:
    from anndata import AnnData


NEIGHBOR_GRID = 5  # neighbours lie on GRID x GRID patches
AUGMENTATION_SEED = 2021  # of views: part of the data, the same for every network


@dataclass(frozen=True)
class PreparedSection:
    """N labelled spots of one section.

    labels : (N, G) float32 on the label scale.
    positions : (N, 2) integer array coordinates, x first.
    patches : (N, 3, P, P) uint8, the target patches.
    statistics : (N, 25, 104) stain statistics of the 5x5 tiles, row-major; they do not depend on
        any fit, so one reading of the slide serves every fold.
    mask : (N, 25) bool, False where a tile leaves the slide.
    dropped : spots without a label.
    slide : fingerprint of the slide, so that a viewer can tell that it was trained on.
    patient : who it is from, "" when unknown.
    ready : features of a frozen encoder, which then take the place of the fitted stain encoder.
    views : the same spots seen in other ways, for training only.
    stain : what its pixels were normalised to, None where they are as they were.
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

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class EncodedSection:
    """A section seen through a tile encoder.

    features : (N, 25, d) of the 5x5 tiles, row-major.
    given : (N, d) of the spots' own patches where they were stored apart.
    views : the section's views in the same way.
    """

    section: PreparedSection
    neighbor_features: Tensor
    stored_target_features: Tensor | None = None
    views: tuple[EncodedSection, ...] = ()

    @property
    def target_features(self) -> Tensor:
        """(N, d) features of the spots' own patches; without stored ones the 13th tile's."""
        return (
            self.neighbor_features[:, NEIGHBOR_GRID * NEIGHBOR_GRID // 2]
            if self.stored_target_features is None
            else self.stored_target_features
        )


class SectionEncoder(Protocol):
    """What of a tile encoder is needed in training."""

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
) -> PreparedSection:
    """Labels and pixels of every labelled spot; each spot's surroundings are read once.

    data : raw counts with ``obsm['spatial']``, ``obs['array_row'|'array_col']`` and
        ``uns['mpp']``, ``uns['section']``, ``uns['spot_pitch_um']``, ``uns['spot_diameter_um']``.
    features : gives ready features of a frozen encoder; without it the section is seen through
        a stain encoder that is fitted on the training sections.
    augmentation : views to read besides; only the stain encoder looks at them.

    Raises SpotsError when panel genes are missing, spots lie off the slide, or stored features
    are not those of the section's spots.
    """
    name = str(data.uns["section"])
    labels = labels_from_section(data, panel, scale)
    xy = np.asarray(data.obsm["spatial"], dtype=float)[labels.rows]
    array = array_coords_from_section(data)[labels.rows]
    off = (
        (xy < 0).any(axis=1) | (xy[:, 0] >= patch_reader.width) | (xy[:, 1] >= patch_reader.height)
    )
    if off.any():
        raise SpotsError(
            f"{int(off.sum())} of {len(xy)} spots of {name} lie off its image "
            f"({patch_reader.width} x {patch_reader.height} px); is it the image of another section?"
        )
    if len(xy) < 2:
        raise SpotsError(
            f"{name} has a single labelled spot; a section takes at least two, since a "
            "correlation over one spot does not exist."
        )
    side = patch_um / float(data.uns["mpp"])
    seen = _read_spot_pixels(patch_reader, xy, side, patch_px, features)
    views = (
        []
        if augmentation is None or features is not None
        else sample_view_transforms(augmentation, AUGMENTATION_SEED)
    )
    return PreparedSection(
        name,
        torch.from_numpy(labels.values),
        torch.from_numpy(array),
        seen.patches,
        seen.statistics,
        seen.mask,
        float(data.uns["mpp"]),
        float(data.uns["spot_pitch_um"]),
        float(data.uns["spot_diameter_um"]),
        labels.dropped_spots,
        patient=str(data.uns.get("patient", "")),
        frozen_features=None if features is None else features.select_features(data, labels.rows),
        views=tuple(
            _read_spot_pixels(
                patch_reader,
                xy + sample_jitter(augmentation, len(xy), random) / float(data.uns["mpp"]),
                side,
                patch_px,
                stain_transform=restain,
            )
            for restain, random in views
            if augmentation is not None
        ),
    )


def _read_spot_pixels(
    patch_reader: PatchReader,
    xy: NDArray[np.float64],
    side: float,
    patch_px: int,
    features: FeatureSource | None = None,
    stain_transform: StainTransform | None = None,
) -> AugmentedView:
    """Patches and statistics around every spot; features are shown the tiles in passing."""
    tile_px = TILE_SIDE_PX if features is None else features.tile_px(TILE_SIDE_PX)
    patches = np.empty((len(xy), patch_px, patch_px, 3), dtype=np.uint8)
    numbers = []
    mask = np.empty((len(xy), NEIGHBOR_GRID**2), dtype=bool)
    for i, (x, y) in enumerate(xy):
        pixels = read_spot_pixels(patch_reader, x, y, side, NEIGHBOR_GRID, patch_px, tile_px)
        patch, window, mask[i] = pixels.target, pixels.tiles, pixels.mask
        if stain_transform is not None:
            patch, window = stain_transform(patch), stain_transform(window)
        patches[i] = patch
        tiles = torch.from_numpy(np.ascontiguousarray(window)).permute(0, 3, 1, 2)
        numbers.append(compute_tile_statistics(_resize_tiles(tiles)))
        if features is not None:
            features.add_tiles(tiles)
    return AugmentedView(
        torch.from_numpy(patches).permute(0, 3, 1, 2).contiguous(),
        torch.stack(numbers),
        torch.from_numpy(mask),
    )


def _resize_tiles(tiles: Tensor) -> Tensor:
    """Tiles at the side that the stain statistics are defined for."""
    if tiles.shape[-1] == TILE_SIDE_PX:
        return tiles
    return F.interpolate(tiles.float(), (TILE_SIDE_PX, TILE_SIDE_PX), mode="area")


def select_genes(sections: Sequence[PreparedSection], rows: Sequence[int]) -> list[PreparedSection]:
    """The sections with the labels of some genes, in the order of rows.

    The labels stay as they are: normalised over the whole panel.
    """
    index = torch.as_tensor(list(rows), dtype=torch.long)
    return [replace(s, labels=s.labels[:, index].contiguous()) for s in sections]


def fit_section_encoder(
    sections: Sequence[PreparedSection], dimension: int, patch_um: float
) -> SectionEncoder:
    """The tile encoder of these sections.

    Ready features have theirs; else it is the stain encoder fitted on the tiles on the slide.

    Raises SpotsError when sections hold features of different encoders.
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
        return FrozenEncoderPlaceholder(spec)
    tiles = torch.cat([s.statistics[s.mask] for s in sections])
    return StainEncoder.fit_from_statistics(tiles, dimension, patch_um)


def encode_section(section: PreparedSection, encoder: SectionEncoder) -> EncodedSection:
    """The section through this encoder; ready features are taken as they are."""
    if section.frozen_features is not None:
        return EncodedSection(
            section,
            section.frozen_features.neighbor_features,
            section.frozen_features.target_features,
        )
    views = [replace(section, **vars(view), views=()) for view in section.views]
    return EncodedSection(
        section,
        encoder.project(section.statistics),
        views=tuple(EncodedSection(v, encoder.project(v.statistics)) for v in views),
    )
