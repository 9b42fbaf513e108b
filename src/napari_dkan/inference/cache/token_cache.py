"""Cache of the fused tokens of grid tiles and of tile features, in memory and on disk."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from shapely import contains_xy, to_wkb

from ...model.stain_normalization import stain_to_json
from ..patch_features.patch_geometry import POSITION_STEPS_PER_PX, PatchKeys
from ..target import Target, TargetKind
from ..tile_qc_features import QC_FEATURE_NAMES
from .keyed_array import KeyedArray

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shapely.geometry.base import BaseGeometry
    from torch import Tensor

    from ..predictor import Predictor
    from ..spot_batches import SpotQueue
    from .cache_entry import CacheEntry


ENGINE_VERSION = 2  # raised when tokens or evidence come out otherwise than before
STAIN_VERSION = 1  # raised when a slide's stain is measured, or changed, otherwise than before
FLUSH_INTERVAL_S = 5.0  # at most so much work is lost when the program is killed

CacheKeyValue = str | float | int


class PersistentKeyedArray:
    """Rows that also go to disk, gathered into parts; without a store only into memory."""

    def __init__(self, array: KeyedArray, entry: CacheEntry | None) -> None:
        self.array, self.entry = array, entry
        self._unflushed: list[tuple[PatchKeys, NDArray[np.float32]]] = []
        self._last_flush = time.perf_counter()
        if entry is not None:
            array.add(*entry.load())

    def add(self, keys: PatchKeys, rows: NDArray[np.float32]) -> None:
        self.array.add(keys, rows)
        if self.entry is not None and self.entry.is_writable:
            self._unflushed.append((keys, rows))
            if time.perf_counter() - self._last_flush > FLUSH_INTERVAL_S:
                self.flush()

    def flush(self) -> None:
        fresh, self._unflushed = self._unflushed, []
        self._last_flush = time.perf_counter()
        if fresh and self.entry is not None:
            keys, rows = zip(*fresh, strict=True)
            self.entry.append(np.concatenate(keys), np.concatenate(rows))


class TokenCache:
    """The fused tokens that a predictor has made, by grid and tissue.

    on_disk : keep them for the next visit too.
    """

    def __init__(self, predictor: Predictor, use_disk: bool) -> None:
        self._predictor = predictor
        # Without its hash nobody can tell later which network made the tokens.
        self._use_disk = use_disk and bool(predictor.checkpoint.sha256)
        self._token_arrays: dict[tuple[float, str], PersistentKeyedArray] = {}
        self._feature_array: PersistentKeyedArray | None = None
        self._lock = Lock()

    @property
    def note(self) -> str:
        """What is not as usual on disk, as a sentence; "" when all is well."""
        return next((s.note for s in self._list_entries() if s.note), "")

    @property
    def warning(self) -> str:
        """As `note`, but only what a person should know: that nothing can be kept, or that the
        slide is not the one of last time. Another grid or checkpoint is no surprise."""
        return next(
            (
                s.note
                for s in self._list_entries()
                if s.note and (s.slide_changed or not s.is_writable)
            ),
            "",
        )

    def _list_entries(self) -> list[CacheEntry]:
        return [w.entry for w in self._list_arrays() if w.entry is not None]

    def _list_arrays(self) -> list[PersistentKeyedArray]:
        with self._lock:
            features = [] if self._feature_array is None else [self._feature_array]
            return [*self._token_arrays.values(), *features]

    def get_grid_tokens(self, target: Target) -> CachedGridTokens | None:
        """Tokens of the target's grid; None where there is no grid."""
        if target.grid is None or target.kind is not TargetKind.GRID:
            return None
        tissue = self._predictor.tissue
        key = (target.grid.pitch, hash_tissue(tissue))
        with self._lock:
            if key not in self._token_arrays:
                made_by = (*self._network_key_values(), ("pitch", key[0]), ("tissue", key[1]))
                width = self._predictor.token_dim + len(
                    QC_FEATURE_NAMES
                )  # each tile's evidence beside it
                self._token_arrays[key] = PersistentKeyedArray(
                    KeyedArray(width), self._open_entry("tokens", width, made_by)
                )
        return CachedGridTokens(self._token_arrays[key], target, tissue, self._predictor.token_dim)

    def load_features(self) -> None:
        """Features of single tiles from earlier visits; new ones are written from now on."""
        with self._lock:
            if self._use_disk and self._feature_array is None:
                features = self._predictor.feature_cache
                made_by = (*self._tile_key_values(), ("positions", POSITION_STEPS_PER_PX))
                self._feature_array = PersistentKeyedArray(
                    features.array, self._open_entry("features", features.array.width, made_by)
                )
                features.persist_rows = self._feature_array.add

    def clear(self) -> None:
        """Start over, with what is on disk."""
        self._token_arrays, self._feature_array = {}, None
        self._predictor.feature_cache.persist_rows = self._predictor.feature_cache.array.add

    def flush(self) -> None:
        for written in self._list_arrays():
            written.flush()

    def _open_entry(
        self, content: str, width: int, made_by: tuple[tuple[str, CacheKeyValue], ...]
    ) -> CacheEntry | None:
        if not self._use_disk:
            return None
        from .cache_entry import open_cache_entry
        from .cache_key import CacheKey

        slide = self._predictor.slide
        return open_cache_entry(
            CacheKey(slide.fingerprint(), slide.location or slide.label, content, width, made_by)
        )

    def _tile_key_values(self) -> tuple[tuple[str, CacheKeyValue], ...]:
        predictor = self._predictor
        spec, tensors = predictor.checkpoint.encoder, predictor.checkpoint.encoder_tensors
        stain = predictor.checkpoint.stain
        if tensors is None:
            tensors = predictor.feature_cache.encoder.tensors()
        return (
            ("encoder", spec.name),
            ("revision", spec.revision),
            ("weights", hash_weights(tensors)),
            ("mpp", predictor.mpp),
            ("patch_um", predictor.checkpoint.patch.um),
            ("px", spec.px),
            ("device", str(predictor.device.type)),
            *(
                (("colours", predictor.slide.color_conversion),)
                if predictor.slide.color_conversion
                else ()
            ),
            *(
                ()
                if stain is None
                else (("stain", json.dumps([STAIN_VERSION, stain_to_json(stain)])),)
            ),
        )

    def _network_key_values(self) -> tuple[tuple[str, CacheKeyValue], ...]:
        return (
            *self._tile_key_values(),
            ("engine", ENGINE_VERSION),
            ("checkpoint", self._predictor.checkpoint.sha256),
        )


class CachedGridTokens:
    """Kept tokens and evidence of one target's tiles.

    Tiles off the tissue are not kept: what they see depends on which others were asked for.
    """

    def __init__(
        self, array: PersistentKeyedArray, target: Target, tissue: BaseGeometry, token_dim: int
    ) -> None:
        assert target.grid is not None
        self._array, self._cells, self._token_dim = array, target.grid.cells, token_dim
        self._on_tissue = contains_xy(tissue, *target.grid.centres.T)

    def count_cached(self) -> int:
        """How many of the target's tiles are known."""
        return int(self._array.array.contains(self._cells[self._on_tissue]).sum())

    def get_cached(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows (B,) of the target that are known, and their tokens (B, D)."""
        rows = np.flatnonzero(self._on_tissue)
        kept, there = self._array.array.get(self._cells[rows])
        return rows[there], kept[there, : self._token_dim]

    def pop_cached(
        self, queue: SpotQueue, max_rows: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]]:
        """Rows, tokens and evidence known before, in the queue's order and off it from now on."""
        rows = queue.remaining_rows[self._on_tissue[queue.remaining_rows]]
        rows = rows[self._array.array.contains(self._cells[rows])]
        for start in range(0, len(rows), max_rows):
            part = rows[start : start + max_rows]
            kept, there = self._array.array.get(self._cells[part])
            queue.drop(part[there])
            yield part[there], kept[there, : self._token_dim], kept[there, self._token_dim :]

    def add(
        self,
        rows: NDArray[np.int64],
        tokens: NDArray[np.float32],
        qc_features: NDArray[np.float32],
    ) -> None:
        lasting = self._on_tissue[rows]
        beside = np.concatenate([tokens[lasting], qc_features[lasting]], axis=1)
        self._array.add(self._cells[rows[lasting]], beside)


def hash_tissue(tissue: BaseGeometry) -> str:
    """Equal for equal outlines."""
    return hashlib.sha256(to_wkb(tissue)).hexdigest()[:16]


def hash_weights(tensors: Mapping[str, Tensor]) -> str:
    """Tells weights apart by a few numbers of each: hashing a large encoder takes seconds."""
    made = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        few = tensor.detach().flatten()[:16].float().cpu().numpy()
        made.update(f"{name}{tuple(tensor.shape)}".encode() + few.tobytes())
    return made.hexdigest()[:16]
