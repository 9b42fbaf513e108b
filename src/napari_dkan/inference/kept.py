"""What stays known of a slide: fused tokens of grid tiles, in memory and on disk.

Tokens depend on the network, the tissue and the grid; features of single tiles only on the
encoder and the tile. So another checkpoint with the same encoder still finds the features.
"""

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

from ..model.stain_norm import to_json
from .evidence import NAMES
from .patches import STEPS, Keys
from .rows import Rows
from .target import Kind, Target

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shapely.geometry.base import BaseGeometry
    from torch import Tensor

    from .engine import Predictor
    from .queue import Queue
    from .store.store import Store

ENGINE = 2  # raised when tokens or evidence come out otherwise than before
STAIN = 1  # raised when a slide's stain is measured, or changed, otherwise than before
FLUSH_SECONDS = 5.0  # at most so much work is lost when the program is killed

Value = str | float | int


class Written:
    """Rows that also go to disk, gathered into parts; without a store only into memory."""

    def __init__(self, rows: Rows, store: Store | None) -> None:
        self.rows, self.store = rows, store
        self._fresh: list[tuple[Keys, NDArray[np.float32]]] = []
        self._flushed = time.perf_counter()
        if store is not None:
            rows.add(*store.load())

    def add(self, keys: Keys, rows: NDArray[np.float32]) -> None:
        self.rows.add(keys, rows)
        if self.store is not None and self.store.writing:
            self._fresh.append((keys, rows))
            if time.perf_counter() - self._flushed > FLUSH_SECONDS:
                self.flush()

    def flush(self) -> None:
        fresh, self._fresh = self._fresh, []
        self._flushed = time.perf_counter()
        if fresh and self.store is not None:
            keys, rows = zip(*fresh, strict=True)
            self.store.append(np.concatenate(keys), np.concatenate(rows))


class Kept:
    """The fused tokens that a predictor has made, by grid and tissue.

    on_disk : keep them for the next visit too.
    """

    def __init__(self, predictor: Predictor, on_disk: bool) -> None:
        self._predictor = predictor
        # Without its hash nobody can tell later which network made the tokens.
        self._on_disk = on_disk and bool(predictor.checkpoint.sha256)
        self._grids: dict[tuple[float, str], Written] = {}
        self._features: Written | None = None
        self._lock = Lock()

    @property
    def note(self) -> str:
        """What is not as usual on disk, as a sentence; "" when all is well."""
        return next((s.note for s in self._stores() if s.note), "")

    @property
    def warning(self) -> str:
        """As `note`, but only what a person should know: that nothing can be kept, or that the
        slide is not the one of last time. Another grid or checkpoint is no surprise."""
        return next((s.note for s in self._stores() if s.note and (s.changed or not s.writing)), "")

    def _stores(self) -> list[Store]:
        return [w.store for w in self._all() if w.store is not None]

    def _all(self) -> list[Written]:
        with self._lock:
            features = [] if self._features is None else [self._features]
            return [*self._grids.values(), *features]

    def of(self, target: Target) -> GridTokens | None:
        """Tokens of the target's grid; None where there is no grid."""
        if target.grid is None or target.kind is not Kind.GRID:
            return None
        tissue = self._predictor.tissue
        key = (target.grid.pitch, signature(tissue))
        with self._lock:
            if key not in self._grids:
                made_by = (*self._of_network(), ("pitch", key[0]), ("tissue", key[1]))
                width = self._predictor.width + len(NAMES)  # each tile's evidence beside it
                self._grids[key] = Written(Rows(width), self._store("tokens", width, made_by))
        return GridTokens(self._grids[key], target, tissue, self._predictor.width)

    def read_features(self) -> None:
        """Features of single tiles from earlier visits; new ones are written from now on."""
        with self._lock:
            if self._on_disk and self._features is None:
                features = self._predictor.features
                made_by = (*self._of_tiles(), ("positions", STEPS))
                self._features = Written(
                    features.rows, self._store("features", features.rows.width, made_by)
                )
                features.lasting = self._features.add

    def forget(self) -> None:
        """Start over, with what is on disk."""
        self._grids, self._features = {}, None
        self._predictor.features.lasting = self._predictor.features.rows.add

    def flush(self) -> None:
        for written in self._all():
            written.flush()

    def _store(self, what: str, width: int, made_by: tuple[tuple[str, Value], ...]) -> Store | None:
        if not self._on_disk:
            return None
        from .store.key import StoreKey
        from .store.store import open_store

        slide = self._predictor.slide
        return open_store(
            StoreKey(slide.fingerprint(), slide.location or slide.label, what, width, made_by)
        )

    def _of_tiles(self) -> tuple[tuple[str, Value], ...]:
        predictor = self._predictor
        spec, tensors = predictor.checkpoint.encoder, predictor.checkpoint.encoder_tensors
        stain = predictor.checkpoint.stain
        if tensors is None:
            tensors = predictor.features.encoder.tensors()
        return (
            ("encoder", spec.name),
            ("revision", spec.revision),
            ("weights", digest(tensors)),
            ("mpp", predictor.mpp),
            ("patch_um", predictor.checkpoint.patch.um),
            ("px", spec.px),
            ("device", str(predictor.device.type)),
            *((("colours", predictor.slide.colours),) if predictor.slide.colours else ()),
            *(() if stain is None else (("stain", json.dumps([STAIN, to_json(stain)])),)),
        )

    def _of_network(self) -> tuple[tuple[str, Value], ...]:
        return (
            *self._of_tiles(),
            ("engine", ENGINE),
            ("checkpoint", self._predictor.checkpoint.sha256),
        )


class GridTokens:
    """Kept tokens and evidence of one target's tiles.

    Tiles off the tissue are not kept: what they see depends on which others were asked for.
    """

    def __init__(self, written: Written, target: Target, tissue: BaseGeometry, width: int) -> None:
        assert target.grid is not None
        self._written, self._cells, self._width = written, target.grid.cells, width
        self._lasting = contains_xy(tissue, *target.grid.centres.T)

    def count(self) -> int:
        """How many of the target's tiles are known."""
        return int(self._written.rows.has(self._cells[self._lasting]).sum())

    def take(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows (B,) of the target that are known, and their tokens (B, D)."""
        rows = np.flatnonzero(self._lasting)
        kept, there = self._written.rows.take(self._cells[rows])
        return rows[there], kept[there, : self._width]

    def known(
        self, queue: Queue, most: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]]:
        """Rows, tokens and evidence known before, in the queue's order and off it from now on."""
        rows = queue.left[self._lasting[queue.left]]
        rows = rows[self._written.rows.has(self._cells[rows])]
        for start in range(0, len(rows), most):
            part = rows[start : start + most]
            kept, there = self._written.rows.take(self._cells[part])
            queue.drop(part[there])
            yield part[there], kept[there, : self._width], kept[there, self._width :]

    def add(
        self,
        rows: NDArray[np.int64],
        tokens: NDArray[np.float32],
        evidence: NDArray[np.float32],
    ) -> None:
        lasting = self._lasting[rows]
        beside = np.concatenate([tokens[lasting], evidence[lasting]], axis=1)
        self._written.add(self._cells[rows[lasting]], beside)


def signature(tissue: BaseGeometry) -> str:
    """Equal for equal outlines."""
    return hashlib.sha256(to_wkb(tissue)).hexdigest()[:16]


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Tells weights apart by a few numbers of each: hashing a large encoder takes seconds."""
    made = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        few = tensor.detach().flatten()[:16].float().cpu().numpy()
        made.update(f"{name}{tuple(tensor.shape)}".encode() + few.tobytes())
    return made.hexdigest()[:16]
