"""Precomputed features of a feature file, with checks against slide and checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from ...errors import SpotsError
from ...spatial.spots import Spots
from ...spatial.tile_grid import TileGrid
from ..cache.keyed_array import pack_keys
from ..target import Target, TargetKind
from .patch_geometry import Level0Bounds, PatchKeys, keys_from_centers
from .tile_feature_file import TileFeatureFile, open_feature_file

if TYPE_CHECKING:
    from ...model import Checkpoint
    from ...slide import Slide


@dataclass(frozen=True)
class PrecomputedFeatures:
    """Features of a file's tiles, by position.

    Attributes
    ----------
    mpp : float
        um per level-0 px.
    lacks_encoder : bool
        Whether there are no weights to encode other patches. Neighbors that the file lacks are
        then masked like those off the slide.
    note : str
        A sentence about what the user should check, "" when there is nothing.
    xy : ndarray
        (M, 2) centers of the tiles in level-0 px.
    cells : ndarray
        (M, 2) cells of the tiles on a grid of the tile size, each once.
    """

    feature_file: TileFeatureFile
    mpp: float
    lacks_encoder: bool
    note: str = ""
    xy: NDArray[np.float64] = field(init=False, repr=False)
    cells: NDArray[np.int64] = field(init=False, repr=False)
    _row_by_key: dict[int, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # Pieces of tissue may have different grids; the first of two tiles in a cell is used.
        centers = self.feature_file.centers
        cells = np.floor(centers / self.feature_file.tile_side_px).astype(np.int64)
        _, first = np.unique(cells, axis=0, return_index=True)
        first = first[np.lexsort((cells[first, 0], cells[first, 1]))]
        object.__setattr__(self, "xy", centers[first])
        object.__setattr__(self, "cells", cells[first])
        row_by_key: dict[int, int] = {}
        for row, key in enumerate(pack_keys(keys_from_centers(centers))):
            row_by_key.setdefault(key, row)
        object.__setattr__(self, "_row_by_key", row_by_key)

    def __len__(self) -> int:
        return len(self.xy)

    @property
    def tile_side_px(self) -> float:
        """Side of a tile in level-0 px."""
        return self.feature_file.tile_side_px

    def contains(self, keys: PatchKeys) -> NDArray[np.bool_]:
        """(...) whether each of the keys (..., 2) is a tile of the file."""
        flat = keys.reshape(-1, 2)
        contained = np.fromiter((k in self._row_by_key for k in pack_keys(flat)), bool, len(flat))
        return contained.reshape(keys.shape[:-1])

    def get_features(self, keys: PatchKeys) -> NDArray[np.float32]:
        """(M, d) features of keys (M, 2) of the file; see `TileFeatureFile.read_features`."""
        return self.feature_file.read_features(
            np.array([self._row_by_key[k] for k in pack_keys(keys)], np.int64)
        )

    def select_tiles(self, bounds: Level0Bounds) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Centers (M, 2) and cells (M, 2) of the tiles whose center is within the bounds."""
        x0, y0, x1, y1 = bounds
        x, y = self.xy.T
        inside = (x >= x0) & (x < x1) & (y >= y0) & (y < y1)
        return self.xy[inside], self.cells[inside]

    @cached_property
    def tile_grid(self) -> TileGrid | None:
        """The grid of all tiles; None where they are not on one grid."""
        grid = TileGrid(self.tile_side_px, self.tile_side_px * self.mpp, self.cells)
        return grid if np.array_equal(grid.centres, self.xy) else None

    def target_from_region(self, region: BaseGeometry | None = None) -> Target:
        """Make a target of the file's tiles whose center is in a region (level-0 px), if given.

        Raises
        ------
        SpotsError
            When there is none.
        """
        rows = np.arange(len(self.xy))
        if region is not None:
            rows = np.flatnonzero(shapely.contains_xy(region, *self.xy.T))
        if not len(rows):
            raise SpotsError(
                f"None of the tiles in {self.feature_file.path.name} lies in this region; draw it "
                "where the file has tiles."
            )
        return self._target_from_rows(rows)

    def target_at_point(self, x: float, y: float) -> Target:
        """Make a target of the tile under a point (level-0 px).

        Raises
        ------
        SpotsError
            When there is none.
        """
        distance = np.abs(self.xy - (x, y)).max(axis=1)
        nearest = int(distance.argmin())
        if distance[nearest] > self.tile_side_px / 2:
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
        """Build the entry of a prediction's provenance."""
        return {
            "file": self.feature_file.path.name,
            "encoder": self.feature_file.encoder_name or "not stated",
            "tiles": len(self.xy),
            "tile_px": self.tile_side_px,
        }


SIDE_TOLERANCE = 0.02  # relative difference from the checkpoint's patch size
MIN_TILE_PX_RATIO = 0.97  # of the encoder's px; fewer mean a lower magnification
MAGNIFICATION_TIMES_MPP = 10.0  # convention of scanners
MAX_MAGNIFICATION_RATIO = 2.0  # between the stated magnification and that of the pixel size

# Encoders whose names in TRIDENT (trident/patch_encoder_models/load.py) are not the models'.
_TRIDENT_ENCODER_NAMES = {
    "uni_v1": "uni",
    "uni_v2": "uni2-h",
    "hoptimus0": "h-optimus-0",
    "hoptimus1": "h-optimus-1",
    "conch_v1": "conch",
    "phikon_v2": "phikon-v2",
}


def load_precomputed_features(
    path: str | Path,
    slide: Slide,
    checkpoint: Checkpoint,
    mpp: float,
    encoder: str | None = None,
    weights: Path | None = None,
) -> PrecomputedFeatures:
    """Load the features of a TRIDENT or CLAM file for a `Predictor`.

    These programs count from the corner of the glass, as OpenSlide does; the tiles are moved to
    the frame of the slide where only its scan area is open.

    Parameters
    ----------
    mpp : float
        um per level-0 px.
    encoder : str, optional
        Name of the encoder, for a file that does not state it.
    weights : Path, optional
        Local weights of the checkpoint's encoder. With them, or with those in the checkpoint,
        patches that the file lacks are encoded.

    Raises
    ------
    SpotsError
        When the file does not fit the slide or the checkpoint.
    """
    file = open_feature_file(path)
    _check_encoder(file, checkpoint, encoder)
    _check_tile_size(file, checkpoint, mpp)
    _check_slide(file, slide, mpp)
    file = replace(file, centers=file.centers + np.array(slide.scan_area.glass[:2]))
    lacks_encoder = checkpoint.encoder_tensors is None and weights is None
    note = ""
    if file.slide_name and Path(file.slide_name).stem not in (slide.name, Path(slide.name).stem):
        note = (
            f"{file.path.name} was made of a slide named {file.slide_name}, this one is "
            f"{slide.name}; make sure that they are the same."
        )
    return PrecomputedFeatures(file, mpp, lacks_encoder, note)


def _check_encoder(file: TileFeatureFile, checkpoint: Checkpoint, encoder: str | None) -> None:
    from ...model.encoders.encoder_spec import EXTERNAL_ENCODER

    name, spec = file.path.name, checkpoint.encoder
    required = _normalize_encoder_name(spec.name)
    if file.feature_dim != spec.dimension:
        raise SpotsError(
            f"{name} holds features of {file.feature_dim:,} numbers, but the checkpoint's encoder "
            f"{required} makes {spec.dimension:,}; extract them with {required}."
        )
    stated = encoder or file.encoder_name
    if checkpoint.stain is not None:
        raise SpotsError(
            f"The checkpoint brings slides to one stain before it encodes them, which {name} did "
            "not; predict without the file."
        )
    if not stated:
        raise SpotsError(
            f"{name} does not say which encoder made its features; if it was {required}, name "
            f"{required} as the encoder of the features."
        )
    if spec.name != EXTERNAL_ENCODER and _normalize_encoder_name(stated) != required:
        raise SpotsError(
            f"The features in {name} are of {_normalize_encoder_name(stated)}, but the checkpoint "
            f"needs those of {required}; extract them with {required}, or choose another "
            "checkpoint."
        )


def _check_tile_size(file: TileFeatureFile, checkpoint: Checkpoint, mpp: float) -> None:
    name, side_px = file.path.name, file.tile_side_px
    side_um, patch_um, px = side_px * mpp, checkpoint.patch.um, checkpoint.encoder.px
    if abs(side_um / patch_um - 1) > SIDE_TOLERANCE:
        raise SpotsError(
            f"The tiles in {name} are {side_um:.0f} um wide ({side_px:g} px of {mpp:.3g} um), but "
            f"the checkpoint needs {patch_um:.0f} um; extract tiles of {patch_um / mpp:.0f} "
            "level-0 px."
        )
    if file.tile_px is not None and file.tile_px < px * MIN_TILE_PX_RATIO:
        raise SpotsError(
            f"The tiles in {name} were read at {file.tile_px:g} px, but the checkpoint's encoder "
            f"sees them at {px} px; extract them at a higher magnification."
        )


def _check_slide(file: TileFeatureFile, slide: Slide, mpp: float) -> None:
    name, size = file.path.name, slide.scan_area.glass[2:]
    corners = file.centers - file.tile_side_px / 2
    is_outside = (corners.min(axis=0) < 0).any() or (corners.max(axis=0) >= size).any()
    if is_outside or (file.slide_size is not None and file.slide_size != size):
        other_size = "another size."
        if file.slide_size is not None:
            other_size = f"{file.slide_size[0]:,.0f} x {file.slide_size[1]:,.0f} px."
        raise SpotsError(
            f"{name} is not of this slide ({size[0]:,} x {size[1]:,} px): its tiles lie on one of "
            f"{other_size}"
        )
    if file.magnification is not None:
        ratio = file.magnification * mpp / MAGNIFICATION_TIMES_MPP
        if not 1 / MAX_MAGNIFICATION_RATIO < ratio < MAX_MAGNIFICATION_RATIO:
            raise SpotsError(
                f"{name} takes the slide for a {file.magnification:g}x scan, but it has "
                f"{mpp:.3g} um per px; check the pixel size."
            )


def _normalize_encoder_name(name: str) -> str:
    """The model's name of an encoder, without its owner and in lower case."""
    short = name.rpartition("/")[2].lower()
    return _TRIDENT_ENCODER_NAMES.get(short, short)
