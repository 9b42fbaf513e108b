"""Precomputed features from a feature file, and the checks that it fits slide and checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from ...errors import SpotsError
from ...spatial.spots import Spots
from ...spatial.tile_grid import TileGrid
from ..cache.keyed_array import pack_keys
from ..target import Target, TargetKind
from .patch_geometry import PatchKeys, keys_from_centers
from .tile_feature_file import TileFeatureFile, open_feature_file

if TYPE_CHECKING:
    from ...model import Checkpoint


Level0Bounds = tuple[float, float, float, float]


@dataclass(frozen=True)
class PrecomputedFeatures:
    """Features by position, of tiles that lie as their file has them.

    side : of a tile in level-0 px. mpp : of the slide.
    alone : there are no weights to encode anything else with, so other places cannot be had and
        neighbours that the file lacks are masked as those off the slide are.
    note : one sentence for the person when something is to be looked at, else "".
    """

    feature_file: TileFeatureFile
    mpp: float
    lacks_encoder: bool
    note: str = ""
    xy: NDArray[np.float64] = field(init=False, repr=False)
    cells: NDArray[np.int64] = field(init=False, repr=False)
    _row_by_key: dict[int, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # Tiles of several pieces of tissue may lie on grids of their own; of two that share most
        # of their place the first one counts.
        cells = np.floor(self.feature_file.centers / self.feature_file.tile_side_px).astype(
            np.int64
        )
        _, first = np.unique(cells, axis=0, return_index=True)
        first = first[np.lexsort((cells[first, 0], cells[first, 1]))]
        object.__setattr__(self, "xy", self.feature_file.centers[first])
        object.__setattr__(self, "cells", cells[first])
        keys = pack_keys(keys_from_centers(self.feature_file.centers))
        rows: dict[int, int] = {}
        for row, key in enumerate(keys):
            rows.setdefault(key, row)
        object.__setattr__(self, "_row_by_key", rows)

    def __len__(self) -> int:
        return len(self.xy)

    @property
    def tile_side_px(self) -> float:
        return self.feature_file.tile_side_px

    def contains(self, keys: PatchKeys) -> NDArray[np.bool_]:
        """(...,) which of the positions (..., 2) are tiles of the file."""
        flat = keys.reshape(-1, 2)
        found = np.fromiter((k in self._row_by_key for k in pack_keys(flat)), bool, len(flat))
        return found.reshape(keys.shape[:-1])

    def get_features(self, keys: PatchKeys) -> NDArray[np.float32]:
        """(M, d) features of positions (M, 2) that are all there. Raises SpotsError."""
        return self.feature_file.read_features(
            np.array([self._row_by_key[k] for k in pack_keys(keys)], np.int64)
        )

    def select_tiles(self, bounds: Level0Bounds) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Centres (M, 2) and cells (M, 2) of the tiles whose centre lies in (x0, y0, x1, y1)."""
        x0, y0, x1, y1 = bounds
        x, y = self.xy.T
        inside = (x >= x0) & (x < x1) & (y >= y0) & (y < y1)
        return self.xy[inside], self.cells[inside]

    @cached_property
    def tile_grid(self) -> TileGrid | None:
        """The grid that all tiles lie on; None where they lie on several, or beside it."""
        whole = TileGrid(self.tile_side_px, self.tile_side_px * self.mpp, self.cells)
        return whole if np.array_equal(whole.centres, self.xy) else None

    def target_from_region(self, region: BaseGeometry | None = None) -> Target:
        """The file's tiles, with a region (level-0 px) those whose centre lies in it.

        Raises SpotsError when there is none.
        """
        rows = np.arange(len(self.xy))
        if region is not None:
            rows = np.flatnonzero(shapely.contains_xy(region, *self.xy.T))
        if not len(rows):
            raise SpotsError(
                f"None of the tiles in {self.feature_file.path.name} lies in this region; draw it where "
                "the file has tiles."
            )
        return self._target_from_rows(rows)

    def target_at_point(self, x: float, y: float) -> Target:
        """The tile under a point (level-0 px). Raises SpotsError when there is none."""
        beside = np.abs(self.xy - (x, y)).max(axis=1)
        nearest = int(beside.argmin())
        if beside[nearest] > self.tile_side_px / 2:
            raise SpotsError(
                f"{self.feature_file.path.name} has no tile there; click where it has some."
            )
        return self._target_from_rows(np.array([nearest]))

    def _target_from_rows(self, rows: NDArray[np.int64]) -> Target:
        pitch_um = self.tile_side_px * self.mpp
        if self.tile_grid is not None:
            grid = self.tile_grid.take(rows)
            return Target(TargetKind.TILES, grid.to_spots(), grid)
        cells = self.cells[rows]
        names = tuple(f"{x}x{y}" for x, y in cells)
        return Target(TargetKind.TILES, Spots(self.xy[rows], cells, names, None, pitch_um))

    def to_provenance(self) -> dict[str, Any]:
        """For the provenance of what is predicted from them."""
        return {
            "file": self.feature_file.path.name,
            "encoder": self.feature_file.encoder_name or "not stated",
            "tiles": len(self.xy),
            "tile_px": self.tile_side_px,
        }


SIDE_TOLERANCE = 0.02  # tiles may be so much larger or smaller than the checkpoint's
MIN_TILE_PX_RATIO = 0.97  # of the encoder's px at least: fewer would be a lower magnification
MAGNIFICATION_TIMES_MPP = 10.0  # magnification times um/px, as scanners understand it
MAX_MAGNIFICATION_RATIO = 2.0  # a scanner's magnification and its pixel size never differ so much

# TRIDENT's names (trident/patch_encoder_models/load.py) where they are not those of the model
_TRIDENT_ENCODER_NAMES = {
    "uni_v1": "uni",
    "uni_v2": "uni2-h",
    "hoptimus0": "h-optimus-0",
    "hoptimus1": "h-optimus-1",
    "conch_v1": "conch",
    "phikon_v2": "phikon-v2",
}


class SlideDimensions(Protocol):
    """What of a slide is needed here."""

    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def name(self) -> str: ...


def load_precomputed_features(
    path: str | Path,
    slide: SlideDimensions,
    checkpoint: Checkpoint,
    mpp: float,
    encoder: str | None = None,
    weights: Path | None = None,
) -> PrecomputedFeatures:
    """The features of a TRIDENT or CLAM file, for `Predictor(..., ready=...)`.

    mpp : um per level-0 px. encoder : who made them, for a file that does not say.
    weights : local weights of the checkpoint's encoder; with them, or when they travel in the
    checkpoint, patches that the file lacks are encoded.

    Raises SpotsError that says in one sentence what does not match.
    """
    file = open_feature_file(path)
    _check_encoder(file, checkpoint, encoder)
    _check_tile_size(file, checkpoint, mpp)
    _check_slide(file, slide, mpp)
    alone = checkpoint.encoder_tensors is None and weights is None
    note = ""
    if file.slide_name and Path(file.slide_name).stem not in (slide.name, Path(slide.name).stem):
        note = (
            f"{file.path.name} was made of a slide named {file.slide_name}, this one is {slide.name}; "
            "make sure that they are the same."
        )
    return PrecomputedFeatures(file, mpp, alone, note)


def _check_encoder(file: TileFeatureFile, checkpoint: Checkpoint, encoder: str | None) -> None:
    from ...model.encoders import EXTERNAL_ENCODER

    name, spec = file.path.name, checkpoint.encoder
    wanted = _normalize_encoder_name(spec.name)
    if file.feature_dim != spec.dimension:
        raise SpotsError(
            f"{name} holds features of {file.feature_dim:,} numbers, but the checkpoint's encoder "
            f"{wanted} makes {spec.dimension:,}; extract them with {wanted}."
        )
    said = encoder or file.encoder_name
    if checkpoint.stain is not None:
        raise SpotsError(
            f"The checkpoint brings slides to one stain before it encodes them, which {name} did "
            "not; predict without the file."
        )
    if not said:
        raise SpotsError(
            f"{name} does not say which encoder made its features; if it was {wanted}, say so "
            f"with --features-encoder {wanted} (in the panel: Advanced)."
        )
    if spec.name != EXTERNAL_ENCODER and _normalize_encoder_name(said) != wanted:
        raise SpotsError(
            f"The features in {name} are of {_normalize_encoder_name(said)}, but the checkpoint needs those of "
            f"{wanted}; extract them with {wanted}, or choose another checkpoint."
        )


def _check_tile_size(file: TileFeatureFile, checkpoint: Checkpoint, mpp: float) -> None:
    name, um = file.path.name, file.tile_side_px * mpp
    patch, px = checkpoint.patch, checkpoint.encoder.px
    if abs(um / patch.um - 1) > SIDE_TOLERANCE:
        raise SpotsError(
            f"The tiles in {name} are {um:.0f} um wide ({file.tile_side_px:g} px of {mpp:.3g} um), but the "
            f"checkpoint needs {patch.um:.0f} um; extract tiles of {patch.um / mpp:.0f} "
            "level-0 px."
        )
    if file.tile_px is not None and file.tile_px < px * MIN_TILE_PX_RATIO:
        raise SpotsError(
            f"The tiles in {name} were read at {file.tile_px:g} px, but the checkpoint's encoder sees "
            f"them at {px} px; extract them at a higher magnification."
        )


def _check_slide(file: TileFeatureFile, slide: SlideDimensions, mpp: float) -> None:
    name, size = file.path.name, (slide.width, slide.height)
    low, high = (
        (file.centers - file.tile_side_px / 2).min(axis=0),
        (file.centers - file.tile_side_px / 2).max(axis=0),
    )
    if (
        (low < 0).any()
        or (high >= size).any()
        or (file.slide_size is not None and file.slide_size != size)
    ):
        raise SpotsError(
            f"{name} is not of this slide ({size[0]:,} x {size[1]:,} px): its tiles lie on one of "
            + (
                f"{file.slide_size[0]:,.0f} x {file.slide_size[1]:,.0f} px."
                if file.slide_size is not None
                else "another size."
            )
        )
    if file.magnification is not None:
        ratio = file.magnification * mpp / MAGNIFICATION_TIMES_MPP
        if not 1 / MAX_MAGNIFICATION_RATIO < ratio < MAX_MAGNIFICATION_RATIO:
            raise SpotsError(
                f"{name} takes the slide for a {file.magnification:g}x scan, but it has "
                f"{mpp:.3g} um per px; check the pixel size."
            )


def _normalize_encoder_name(name: str) -> str:
    """One name for an encoder, however programs write it."""
    short = name.rpartition("/")[2].lower()
    return _TRIDENT_ENCODER_NAMES.get(short, short)
