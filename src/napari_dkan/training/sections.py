"""A section made ready for training: its labels and the pixels around every spot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..errors import SpotsError
from ..expression.label_scale import LabelScale
from ..expression.labels import array_coordinates, panel_labels
from ..expression.panel import Panel
from ..inference.patches import Squares, read_spot
from ..model.encoders.protocol import EncoderSpec
from ..model.encoders.stain import StainEncoder
from ..model.encoders.stain_statistics import SIDE, statistics
from ..model.stain_norm import Stain
from .augment import Augmentation, Restain, View, jitter, plan
from .ready import ReadyEncoder, ReadyFeatures, TileFeatures

if TYPE_CHECKING:
    from anndata import AnnData

GRID = 5  # neighbours lie on GRID x GRID patches
VIEW_SEED = 2021  # of views: part of the data, the same for every network


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
    dropped: tuple[str, ...] = ()
    slide: str = ""
    patient: str = ""
    ready: ReadyFeatures | None = None
    views: tuple[View, ...] = ()
    stain: Stain | None = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Encoded:
    """A section seen through a tile encoder.

    features : (N, 25, d) of the 5x5 tiles, row-major.
    given : (N, d) of the spots' own patches where they were stored apart.
    views : the section's views in the same way.
    """

    section: Section
    features: Tensor
    given: Tensor | None = None
    views: tuple[Encoded, ...] = ()

    @property
    def own(self) -> Tensor:
        """(N, d) features of the spots' own patches; without stored ones the 13th tile's."""
        return self.features[:, GRID * GRID // 2] if self.given is None else self.given


class SectionEncoder(Protocol):
    """What of a tile encoder is needed in training."""

    @property
    def spec(self) -> EncoderSpec: ...

    def tensors(self) -> dict[str, Tensor]: ...

    def project(self, numbers: Tensor) -> Tensor: ...


def prepare_section(
    data: AnnData,
    slide: Squares,
    panel: Panel,
    scale: LabelScale,
    patch_um: float,
    patch_px: int,
    features: TileFeatures | None = None,
    augmentation: Augmentation | None = None,
) -> Section:
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
    labels = panel_labels(data, panel, scale)
    xy = np.asarray(data.obsm["spatial"], dtype=float)[labels.rows]
    array = array_coordinates(data)[labels.rows]
    off = (xy < 0).any(axis=1) | (xy[:, 0] >= slide.width) | (xy[:, 1] >= slide.height)
    if off.any():
        raise SpotsError(
            f"{int(off.sum())} of {len(xy)} spots of {name} lie off its image "
            f"({slide.width} x {slide.height} px); is it the image of another section?"
        )
    if len(xy) < 2:
        raise SpotsError(
            f"{name} has a single labelled spot; a section takes at least two, since a "
            "correlation over one spot does not exist."
        )
    side = patch_um / float(data.uns["mpp"])
    seen = _look(slide, xy, side, patch_px, features)
    views = [] if augmentation is None or features is not None else plan(augmentation, VIEW_SEED)
    return Section(
        name,
        torch.from_numpy(labels.values),
        torch.from_numpy(array),
        seen.patches,
        seen.statistics,
        seen.mask,
        float(data.uns["mpp"]),
        float(data.uns["spot_pitch_um"]),
        float(data.uns["spot_diameter_um"]),
        labels.dropped,
        patient=str(data.uns.get("patient", "")),
        ready=None if features is None else features.of(data, labels.rows),
        views=tuple(
            _look(
                slide,
                xy + jitter(augmentation, len(xy), random) / float(data.uns["mpp"]),
                side,
                patch_px,
                restain=restain,
            )
            for restain, random in views
            if augmentation is not None
        ),
    )


def _look(
    slide: Squares,
    xy: NDArray[np.float64],
    side: float,
    patch_px: int,
    features: TileFeatures | None = None,
    restain: Restain | None = None,
) -> View:
    """Patches and statistics around every spot; features are shown the tiles in passing."""
    tile_px = SIDE if features is None else features.px(SIDE)
    patches = np.empty((len(xy), patch_px, patch_px, 3), dtype=np.uint8)
    numbers = []
    mask = np.empty((len(xy), GRID**2), dtype=bool)
    for i, (x, y) in enumerate(xy):
        pixels = read_spot(slide, x, y, side, GRID, patch_px, tile_px)
        patch, window, mask[i] = pixels.target, pixels.tiles, pixels.mask
        if restain is not None:
            patch, window = restain(patch), restain(window)
        patches[i] = patch
        tiles = torch.from_numpy(np.ascontiguousarray(window)).permute(0, 3, 1, 2)
        numbers.append(statistics(_shrunk(tiles)))
        if features is not None:
            features.see(tiles)
    return View(
        torch.from_numpy(patches).permute(0, 3, 1, 2).contiguous(),
        torch.stack(numbers),
        torch.from_numpy(mask),
    )


def _shrunk(tiles: Tensor) -> Tensor:
    """Tiles at the side that the stain statistics are defined for."""
    if tiles.shape[-1] == SIDE:
        return tiles
    return F.interpolate(tiles.float(), (SIDE, SIDE), mode="area")


def select_genes(sections: Sequence[Section], rows: Sequence[int]) -> list[Section]:
    """The sections with the labels of some genes, in the order of rows.

    The labels stay as they are: normalised over the whole panel.
    """
    index = torch.as_tensor(list(rows), dtype=torch.long)
    return [replace(s, labels=s.labels[:, index].contiguous()) for s in sections]


def fit_encoder(sections: Sequence[Section], dimension: int, patch_um: float) -> SectionEncoder:
    """The tile encoder of these sections.

    Ready features have theirs; else it is the stain encoder fitted on the tiles on the slide.

    Raises SpotsError when sections hold features of different encoders.
    """
    specs = {None if s.ready is None else s.ready.spec for s in sections}
    if len(specs) > 1:
        names = ", ".join(sorted("stain statistics" if s is None else s.name for s in specs))
        raise SpotsError(
            f"The sections hold features of different encoders ({names}); "
            "prepare all of them with one."
        )
    (spec,) = specs
    if spec is not None:
        return ReadyEncoder(spec)
    tiles = torch.cat([s.statistics[s.mask] for s in sections])
    return StainEncoder.fit_statistics(tiles, dimension, patch_um)


def encode(section: Section, encoder: SectionEncoder) -> Encoded:
    """The section through this encoder; ready features are taken as they are."""
    if section.ready is not None:
        return Encoded(section, section.ready.neighbors, section.ready.own)
    views = [replace(section, **vars(view), views=()) for view in section.views]
    return Encoded(
        section,
        encoder.project(section.statistics),
        views=tuple(Encoded(v, encoder.project(v.statistics)) for v in views),
    )
