"""Encoder features of a slide's patches; what lies on a grid is kept for the next job."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..spatial.grid import TileGrid
from .device import autocast, free_memory
from .job import OutOfMemory, Update, context_update
from .patches import read_tile
from .readahead import read_ahead

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ..model import Checkpoint
    from ..slide import Slide

YIELD_TILES = 32  # encoded between two updates
LARGEST = 512  # tiles the encoder takes at once, less after memory ran out


class TileFeatures:
    """Features of square patches of ``side`` level-0 px.

    weights : local file for an encoder whose weights do not travel in the checkpoint.
    """

    def __init__(
        self,
        slide: Slide,
        checkpoint: Checkpoint,
        side: float,
        device: torch.device,
        weights: Path | None = None,
    ) -> None:
        self._slide, self._checkpoint, self._side = slide, checkpoint, side
        self._device, self._weights = device, weights
        self._encoder: Any = None
        self._kept: dict[tuple[float, int, int], Tensor] = {}  # (pitch, column, row) -> (d,)
        self._largest = LARGEST

    @property
    def encoder(self) -> Any:
        """The tile encoder, built when first needed: gated weights may have to be fetched."""
        if self._encoder is None:
            self._encoder = self._checkpoint.tile_encoder(self._weights).to(self._device)
        return self._encoder

    def encode(self, tiles: NDArray[np.uint8]) -> Tensor:
        """(N, px, px, 3) -> (N, d) float32; what the device cannot hold is cut in half."""
        import torch

        batch = torch.from_numpy(tiles).permute(0, 3, 1, 2)
        mixed = autocast(self._device) if self.encoder.mixed_precision else nullcontext()
        while True:
            parts = batch.split(self._largest)
            try:
                with torch.inference_mode(), mixed:
                    return torch.cat([self.encoder(p.to(self._device)).float() for p in parts])
            except torch.OutOfMemoryError as error:
                if self._largest == 1:
                    raise OutOfMemory(self._device) from error
            free_memory(self._device)
            self._largest = max(1, min(self._largest, len(tiles)) // 2)

    def at(self, xy: NDArray[np.float64]) -> Generator[Update, None, Tensor]:
        """Features (N, d) of patches centred on ``xy``, at least one; yields as it goes."""
        import torch

        px = self.encoder.spec.px
        reads = read_ahead(
            lambda p: read_tile(self._slide, p[0], p[1], self._side, px), xy.tolist()
        )
        features, tiles = [], []
        try:
            for done, tile in enumerate(reads, start=1):
                tiles.append(tile)
                if len(tiles) >= YIELD_TILES or done == len(xy):
                    features.append(self.encode(np.stack(tiles)))
                    tiles = []
                    yield context_update(done, len(xy))
        finally:
            reads.close()
        return torch.cat(features)

    def of_cells(self, pitch: float, cells: NDArray[np.int64]) -> Generator[Update, None, Tensor]:
        """Features (M, d) of grid cells; only those not met before are read and encoded."""
        import torch

        keys = [(pitch, int(x), int(y)) for x, y in cells]
        missing = np.array([k not in self._kept for k in keys], dtype=bool)
        if missing.any():
            features = yield from self.at(TileGrid(pitch, 0.0, cells[missing]).centres)
            new = (k for k, m in zip(keys, missing, strict=True) if m)
            self._kept.update(zip(new, features, strict=True))
        if not keys:
            return torch.empty(0, self._checkpoint.encoder.dimension, device=self._device)
        return torch.stack([self._kept[k] for k in keys])
