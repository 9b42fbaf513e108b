"""Cache of the fused tokens of grid tiles and of tile features, in memory and on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from shapely import contains_xy, to_wkb

from ...model.stain_normalization import stain_to_json
from ..patch_features.patch_geometry import POSITION_STEPS_PER_PX
from ..target import Target, TargetKind
from ..tile_qc_features import QC_FEATURE_NAMES
from .keyed_array import KeyedArray, PersistentKeyedArray

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry
    from torch import Tensor

    from ..prediction_context import PredictionContext
    from .cache_entry import CacheEntry


ENGINE_VERSION = 3  # raised when tokens or quality-control features change
STAIN_VERSION = 1  # raised when measurement or normalization of the stain changes

CacheKeyValue = str | float | int


class TokenCache:
    """Fused tokens of a predictor by grid and tissue, and the entry of its tile features.

    Parameters
    ----------
    use_disk : bool
        Whether to store them on disk too.
    """

    def __init__(self, context: PredictionContext, use_disk: bool) -> None:
        self._context = context
        # Tokens on disk are identified by the hash of their checkpoint.
        self._use_disk = use_disk and bool(context.checkpoint.sha256)
        self._token_arrays: dict[tuple[float, str], PersistentKeyedArray] = {}
        self._feature_array: PersistentKeyedArray | None = None
        self._lock = Lock()

    @property
    def note(self) -> str:
        """A sentence about what is unusual on disk; "" when nothing is."""
        return next((entry.note for entry in self._list_entries() if entry.note), "")

    @property
    def warning(self) -> str:
        """As `note`, but only that nothing can be stored or that the slide has changed.

        Another grid or checkpoint needs no warning.
        """
        for entry in self._list_entries():
            if entry.note and (entry.slide_changed or not entry.is_writable):
                return entry.note
        return ""

    def _list_entries(self) -> list[CacheEntry]:
        return [array.entry for array in self._list_arrays() if array.entry is not None]

    def _list_arrays(self) -> list[PersistentKeyedArray]:
        with self._lock:
            features = [] if self._feature_array is None else [self._feature_array]
            return [*self._token_arrays.values(), *features]

    def get_grid_tokens(self, target: Target) -> CachedGridTokens | None:
        """Get the tokens of the target's grid; None where it has no grid."""
        if target.grid is None or target.kind is not TargetKind.GRID:
            return None
        tissue, token_dim = self._context.tissue, self._context.token_dim
        key = (target.grid.pitch, hash_tissue(tissue))
        with self._lock:
            if key not in self._token_arrays:
                made_by = (*self._network_key_values(), ("pitch", key[0]), ("tissue", key[1]))
                width = token_dim + len(QC_FEATURE_NAMES)
                self._token_arrays[key] = PersistentKeyedArray(
                    KeyedArray(width), self._open_entry("tokens", width, made_by)
                )
        return CachedGridTokens(self._token_arrays[key], target, tissue, token_dim)

    def load_features(self) -> None:
        """Load the tile features on disk, and write new ones from now on."""
        with self._lock:
            if self._use_disk and self._feature_array is None:
                array = self._context.feature_cache.array
                made_by = (*self._tile_key_values(), ("positions", POSITION_STEPS_PER_PX))
                self._feature_array = PersistentKeyedArray(
                    array, self._open_entry("features", array.width, made_by)
                )
                self._context.feature_cache.attach(self._feature_array)

    def clear(self) -> None:
        """Drop everything in memory; what is on disk is loaded again."""
        self._token_arrays, self._feature_array = {}, None
        self._context.feature_cache.detach()

    def flush(self) -> None:
        """Write the rows that are not on disk yet."""
        for array in self._list_arrays():
            array.flush()

    def _open_entry(
        self, content: str, width: int, made_by: tuple[tuple[str, CacheKeyValue], ...]
    ) -> CacheEntry | None:
        if not self._use_disk:
            return None
        from .cache_entry import open_cache_entry
        from .cache_key import CacheKey

        slide = self._context.slide
        return open_cache_entry(
            CacheKey(slide.fingerprint(), slide.location or slide.label, content, width, made_by)
        )

    def _tile_key_values(self) -> tuple[tuple[str, CacheKeyValue], ...]:
        context, checkpoint = self._context, self._context.checkpoint
        spec, tensors, stain = checkpoint.encoder, checkpoint.encoder_tensors, checkpoint.stain
        if tensors is None:
            tensors = context.feature_cache.encoder.tensors()
        values: list[tuple[str, CacheKeyValue]] = [
            ("encoder", spec.name),
            ("revision", spec.revision),
            ("weights", hash_weights(tensors)),
            ("mpp", context.mpp),
            ("patch_um", checkpoint.patch.um),
            ("px", spec.px),
            ("device", str(context.device.type)),
        ]
        if context.slide.color_conversion:
            values.append(("colours", context.slide.color_conversion))
        if stain is not None:
            values.append(("stain", json.dumps([STAIN_VERSION, stain_to_json(stain)])))
        return tuple(values)

    def _network_key_values(self) -> tuple[tuple[str, CacheKeyValue], ...]:
        return (
            *self._tile_key_values(),
            ("engine", ENGINE_VERSION),
            ("checkpoint", self._context.checkpoint.sha256),
        )


class CachedGridTokens:
    """Cached tokens and quality-control features of one target's tiles.

    Tiles off the tissue are not cached: their context depends on the other tiles of the job.
    """

    def __init__(
        self, array: PersistentKeyedArray, target: Target, tissue: BaseGeometry, token_dim: int
    ) -> None:
        assert target.grid is not None
        self._array, self._cells, self._token_dim = array, target.grid.cells, token_dim
        self._on_tissue = contains_xy(tissue, *target.grid.centres.T)

    def count_cached(self) -> int:
        """Number of the target's tiles that are cached."""
        return int(self._array.array.contains(self._cells[self._on_tissue]).sum())

    def get_cached(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows (B,) of the target that are cached, and their tokens (B, D)."""
        rows = np.flatnonzero(self._on_tissue)
        cached, known = self._array.array.get(self._cells[rows])
        return rows[known], cached[known, : self._token_dim]

    def iter_cached(
        self, rows: NDArray[np.int64], max_rows: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]]:
        """Iterate over those of the rows that are cached, up to ``max_rows`` at once.

        Yields
        ------
        tuple
            Rows (B,), tokens (B, D) and quality-control features (B, E).
        """
        rows = rows[self._on_tissue[rows]]
        rows = rows[self._array.array.contains(self._cells[rows])]
        for start in range(0, len(rows), max_rows):
            part = rows[start : start + max_rows]
            cached, known = self._array.array.get(self._cells[part])
            yield part[known], cached[known, : self._token_dim], cached[known, self._token_dim :]

    def add(
        self,
        rows: NDArray[np.int64],
        tokens: NDArray[np.float32],
        qc_features: NDArray[np.float32],
    ) -> None:
        """Cache the tokens of those of the rows that are on tissue."""
        on_tissue = self._on_tissue[rows]
        values = np.concatenate([tokens[on_tissue], qc_features[on_tissue]], axis=1)
        self._array.add(self._cells[rows[on_tissue]], values)


def hash_tissue(tissue: BaseGeometry) -> str:
    """Hash an outline; equal outlines have equal hashes."""
    return hashlib.sha256(to_wkb(tissue)).hexdigest()[:16]


def hash_weights(tensors: Mapping[str, Tensor]) -> str:
    """Hash the first numbers of each tensor: all of a large encoder would take seconds."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        head = tensor.detach().flatten()[:16].float().cpu().numpy()
        digest.update(f"{name}{tuple(tensor.shape)}".encode() + head.tobytes())
    return digest.hexdigest()[:16]
