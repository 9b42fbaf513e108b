"""Spots, where expression is measured or predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import SpotsError


@dataclass(frozen=True)
class Spots:
    """Spot centres on a slide.

    Attributes
    ----------
    xy
        (N, 2) float64, centres in level-0 px (x, y).
    array_coords
        (N, 2) int64 array coordinates along x and y, None for spots that are not on an array.
    names
        N spot ids, or () when unknown.
    diameter_um, pitch_um
        Spot diameter and centre-to-centre distance, None when unknown.
    left_out
        (reason, count) of the spots of the file that were not read.
    off_tissue
        Names of those that were not read because they are not in tissue.
    notes
        Sentences about how the file was read, for its account.
    """

    xy: NDArray[np.float64]
    array_coords: NDArray[np.int64] | None = None
    names: tuple[str, ...] = ()
    diameter_um: float | None = None
    pitch_um: float | None = None
    left_out: tuple[tuple[str, int], ...] = ()
    off_tissue: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        xy = np.asarray(self.xy, dtype=np.float64).reshape(-1, 2)
        if not np.isfinite(xy).all():
            raise SpotsError("Some spots have no finite position; remove those rows.")
        object.__setattr__(self, "xy", xy)
        if self.array_coords is not None:
            array_coords = np.asarray(self.array_coords, dtype=np.int64).reshape(-1, 2)
            if len(array_coords) != len(xy):
                raise SpotsError(f"{len(xy)} spots but {len(array_coords)} array coordinates.")
            object.__setattr__(self, "array_coords", array_coords)
        if self.names and len(self.names) != len(xy):
            raise SpotsError(f"{len(xy)} spots but {len(self.names)} spot names.")

    def __len__(self) -> int:
        return len(self.xy)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the spots, ``spot0``, ``spot1`` ... when they have none."""
        return self.names or tuple(f"spot{i}" for i in range(len(self)))

    def take(self, rows: Sequence[int] | NDArray[np.integer] | NDArray[np.bool_]) -> Spots:
        """Return the spots of these rows (indices or a mask), in that order."""
        index = np.arange(len(self))[np.asarray(rows)]
        return Spots(
            self.xy[index],
            None if self.array_coords is None else self.array_coords[index],
            tuple(self.names[i] for i in index) if self.names else (),
            self.diameter_um,
            self.pitch_um,
            self.left_out,
            self.off_tissue,
            self.notes,
        )


def median_spot_distance(xy: NDArray[np.floating]) -> float:
    """Return the median distance of points (N, 2) to their nearest neighbour, N at least 2."""
    from scipy.spatial import cKDTree

    return float(np.median(cKDTree(xy).query(xy, k=2)[0][:, 1]))


def have_same_positions(a: Spots, b: Spots, tolerance_px: float = 1.0) -> bool:
    """Return whether two sets of spots have the same positions in the same order."""
    return len(a) == len(b) and np.allclose(a.xy, b.xy, rtol=0, atol=tolerance_px)
