"""A section made ready for training: its labels and the pixels around every spot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..errors import SpotsError
from ..expression.label_scale import LabelScale
from ..expression.labels import array_coordinates, panel_labels
from ..expression.panel import Panel
from ..inference.patches import Squares, read_spot
from ..model.encoders.stain import StainEncoder
from ..model.encoders.stain_statistics import SIDE, statistics

if TYPE_CHECKING:
    from anndata import AnnData

GRID = 5  # neighbours lie on GRID x GRID patches


@dataclass(frozen=True)
class Section:
    """N labelled spots of one section.

    labels : (N, G) float32 on the label scale.
    positions : (N, 2) integer array coordinates, x first.
    patches : (N, 3, P, P) uint8, the target patches.
    statistics : (N, 25, 104) stain statistics of the 5x5 tiles, row-major; they do not depend on
        any fit, so one reading of the slide serves every fold.
    mask : (N, 25) bool, False where a tile leaves the slide.
    dropped : spots without a label.
    slide : fingerprint of the slide, so that a viewer can tell that it was trained on.
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
    dropped: tuple[str, ...] = ()
    slide: str = ""

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Encoded:
    """A section seen through a tile encoder: features (N, 25, d); the spot's own is the 13th."""

    section: Section
    features: Tensor

    @property
    def own(self) -> Tensor:
        return self.features[:, GRID * GRID // 2]


def prepare_section(
    data: AnnData,
    slide: Squares,
    panel: Panel,
    scale: LabelScale,
    patch_um: float,
    patch_px: int,
) -> Section:
    """Labels and pixels of every labelled spot; each spot's surroundings are read once.

    data : raw counts with ``obsm['spatial']``, ``obs['array_row'|'array_col']`` and
        ``uns['mpp']``, ``uns['section']``, ``uns['spot_pitch_um']``, ``uns['spot_diameter_um']``.

    Raises SpotsError when panel genes are missing or spots lie off the slide.
    """
    name = str(data.uns["section"])
    labels = panel_labels(data, panel, scale)
    xy = np.asarray(data.obsm["spatial"], dtype=float)[labels.rows]
    array = array_coordinates(data)[labels.rows]
    off = (xy < 0).any(axis=1) | (xy[:, 0] >= slide.width) | (xy[:, 1] >= slide.height)
    if off.any():
        raise SpotsError(
            f"{int(off.sum())} of {len(xy)} spots of {name} lie off its image "
            f"({slide.width} x {slide.height} px); is it the image of another section?"
        )
    side = patch_um / float(data.uns["mpp"])
    patches = np.empty((len(xy), patch_px, patch_px, 3), dtype=np.uint8)
    numbers = []
    mask = np.empty((len(xy), GRID**2), dtype=bool)
    for i, (x, y) in enumerate(xy):
        pixels = read_spot(slide, x, y, side, GRID, patch_px, SIDE)
        patches[i], mask[i] = pixels.target, pixels.mask
        tiles = torch.from_numpy(np.ascontiguousarray(pixels.tiles))
        numbers.append(statistics(tiles.permute(0, 3, 1, 2)))
    return Section(
        name,
        torch.from_numpy(labels.values),
        torch.from_numpy(array),
        torch.from_numpy(patches).permute(0, 3, 1, 2).contiguous(),
        torch.stack(numbers),
        torch.from_numpy(mask),
        float(data.uns["mpp"]),
        float(data.uns["spot_pitch_um"]),
        float(data.uns["spot_diameter_um"]),
        labels.dropped,
    )


def fit_encoder(sections: Sequence[Section], dimension: int, patch_um: float) -> StainEncoder:
    """The tile encoder of these sections: fitted on their tiles that lie on the slide."""
    tiles = torch.cat([s.statistics[s.mask] for s in sections])
    return StainEncoder.fit_statistics(tiles, dimension, patch_um)


def encode(section: Section, encoder: StainEncoder) -> Encoded:
    return Encoded(section, encoder.project(section.statistics))
