"""The prediction engine: pixels in, expression out, batch by batch.

One path serves a click, a spot file, a region and a whole slide, so all of them give the
same numbers. It yields after every batch, so whoever drives it can show the result, count
the rate and stop.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DkanError
from ..spatial.grid import TileGrid
from .context import CAPTURE_UM, capture_window, context_cells
from .device import autocast, pick_device
from .patches import SpotPixels, read_spot, read_tile
from .readahead import read_ahead
from .target import Kind, Target

if TYPE_CHECKING:
    import torch
    from shapely.geometry.base import BaseGeometry
    from torch import Tensor

    from ..model import Checkpoint
    from ..slide import Slide

BATCH_SECONDS = 0.25  # a batch is the grain of cancelling and of what appears
LARGEST_BATCH = 256
LARGEST_ENCODE = 512

# (rows of the target, their own features) -> their global tokens
Tokens = Callable[[NDArray[np.int64], "Tensor"], "Tensor"]


class OutOfMemory(DkanError):
    """The device's memory does not even hold one spot."""


@dataclass(frozen=True)
class Update:
    """What happened since the last one.

    stage : "context" while the slide's own tiles are encoded, then "spots".
    done, total : tiles of this stage.
    rows, values : (B,) rows of the target and their (B, G) float32; empty in "context".
    """

    stage: str
    done: int
    total: int
    rows: NDArray[np.int64]
    values: NDArray[np.float32]


class Predictor:
    """One slide, one checkpoint, one device; keeps encoded tiles for the next job.

    tissue : geometry in level-0 px that makes up the slide's context.
    encoder_weights : local file for an encoder whose weights do not travel in the checkpoint.
    """

    def __init__(
        self,
        slide: Slide,
        checkpoint: Checkpoint,
        mpp: float,
        tissue: BaseGeometry,
        device: str | None = None,
        encoder_weights: Path | None = None,
    ) -> None:
        self._encoder_weights = encoder_weights
        self.slide, self.checkpoint, self.mpp, self.tissue = slide, checkpoint, mpp, tissue
        self.device: torch.device = pick_device(device)
        self.side = checkpoint.patch.um / mpp  # of a patch, in level-0 px
        self.network = checkpoint.network.to(self.device)
        self._encoder: Any = None
        self._cells: dict[tuple[float, int, int], Tensor] = {}  # (pitch, column, row) -> (d,)
        self._batch = 4
        self._largest = LARGEST_BATCH
        self._tiles = LARGEST_ENCODE  # tiles the encoder takes at once

    def stream(
        self,
        target: Target,
        order: NDArray[np.int64] | None = None,
        genes: Sequence[int] | None = None,
    ) -> Iterator[Update]:
        """Predict the target's spots, in ``order`` (rows, default as they are).

        Yields an Update per batch. Raises DkanError (a slide gone, memory out, an encoder
        that cannot be had); what was yielded before stays valid.
        """
        rows = np.arange(len(target)) if order is None else np.asarray(order, dtype=np.int64)
        tokens = yield from self._context(target)
        yield from self._spots(target.spots.xy, rows, tokens, genes)

    # ---- the slide's own tiles -------------------------------------------------------

    def _context(self, target: Target) -> Generator[Update, None, Tokens]:
        """Encode what the global encoder sees; returns how rows get their tokens."""
        if target.kind is Kind.ARRAY:
            features = yield from self._encode(target.spots.xy)
            all_tokens = self._global(features, target.spots.array)
            return lambda rows, own: all_tokens[rows]
        if target.kind is Kind.GRID:
            grid = target.grid
            assert grid is not None
            cells, features = yield from self._grid_context(grid.pitch, grid.centres, grid.cells)
            all_tokens = self._global(features, cells)
            row_of = {(int(x), int(y)): i for i, (x, y) in enumerate(cells)}
            index = np.array([row_of[int(x), int(y)] for x, y in grid.cells])
            return lambda rows, own: all_tokens[index[rows]]
        return (yield from self._points_context(target.spots.xy))

    def _points_context(self, xy: NDArray[np.float64]) -> Generator[Update, None, Tokens]:
        """Each point takes the place of its nearest cell, whatever other points there are."""
        pitch = self.checkpoint.spot_pitch_um / self.mpp
        nearest = np.floor(xy / pitch).astype(np.int64)
        contexts: dict[tuple[float, ...], tuple[NDArray[np.int64], Tensor]] = {}
        keys = []
        for point, cell in zip(xy, nearest, strict=True):
            window = self._window(point[None])
            if window not in contexts:
                contexts[window] = yield from self._grid_context(pitch, point[None], cell[None])
            keys.append(window)

        def tokens(rows: NDArray[np.int64], own: Tensor) -> Tensor:
            import torch

            out = []
            for row, feature in zip(rows, own, strict=True):
                cells, features = contexts[keys[row]]
                at = np.flatnonzero((cells == nearest[row]).all(axis=1))
                if len(at):
                    features = features.clone()
                    features[at[0]] = feature
                else:
                    cells = np.concatenate([cells, nearest[row][None]])
                    features = torch.cat([features, feature[None]])
                    at = np.array([len(cells) - 1])
                out.append(self._global(features, cells)[at[0]])
            return torch.stack(out)

        return tokens

    def _window(self, xy: NDArray[np.float64]) -> tuple[float, float, float, float]:
        bounds = (*xy.min(axis=0), *xy.max(axis=0))
        return capture_window(bounds, CAPTURE_UM / self.mpp, self.slide.width, self.slide.height)

    def _grid_context(
        self, pitch: float, xy: NDArray[np.float64], extra: NDArray[np.int64]
    ) -> Generator[Update, None, tuple[NDArray[np.int64], Tensor]]:
        """(cells (M, 2), features (M, d)) of the tissue around ``xy``; encodes what is new."""
        window = self._window(xy)
        size = self.slide.width, self.slide.height
        cells = context_cells(window, self.tissue, pitch, *size, extra)
        keys = [(pitch, int(x), int(y)) for x, y in cells]
        missing = np.array([k not in self._cells for k in keys])
        if missing.any():
            centres = TileGrid(pitch, 0.0, cells[missing]).centres
            features = yield from self._encode(centres)
            new = (k for k, m in zip(keys, missing, strict=True) if m)
            self._cells.update(zip(new, features, strict=True))
        import torch

        return cells, torch.stack([self._cells[k] for k in keys])

    def _encode(self, xy: NDArray[np.float64]) -> Generator[Update, None, Tensor]:
        """Encoder features (N, d) of patches centred on ``xy``."""
        import torch

        px = self.encoder.spec.px
        reads = read_ahead(lambda p: read_tile(self.slide, p[0], p[1], self.side, px), xy.tolist())
        features, tiles = [], []
        try:
            for done, tile in enumerate(reads, start=1):
                tiles.append(tile)
                if len(tiles) >= 8 * self._batch or done == len(xy):
                    features.append(self._encoded(np.stack(tiles)))
                    tiles = []
                    yield _context_update(done, len(xy))
        finally:
            reads.close()
        return torch.cat(features)

    def _encoded(self, tiles: NDArray[np.uint8]) -> Tensor:
        import torch

        batch = torch.from_numpy(tiles).permute(0, 3, 1, 2)
        mixed = autocast(self.device) if self.encoder.mixed_precision else nullcontext()
        while True:
            parts = batch.split(self._tiles)
            try:
                with torch.inference_mode(), mixed:
                    return torch.cat([self.encoder(p.to(self.device)).float() for p in parts])
            except torch.OutOfMemoryError as error:
                if self._tiles == 1:
                    raise self._too_small() from error
            self._free()
            self._tiles = max(1, min(self._tiles, len(tiles)) // 2)

    def _global(self, features: Tensor, cells: NDArray[np.int64] | None) -> Tensor:
        import torch

        assert cells is not None
        positions = torch.as_tensor(cells, device=self.device)
        with torch.inference_mode():
            return self.network.global_tokens(features, positions)

    # ---- the spots -------------------------------------------------------------------

    def _spots(
        self,
        xy: NDArray[np.float64],
        rows: NDArray[np.int64],
        tokens: Tokens,
        genes: Sequence[int] | None,
    ) -> Iterator[Update]:
        pixels_of = self.network.config.grid, self.checkpoint.patch.px, self.encoder.spec.px

        def read(row: int) -> SpotPixels:
            x, y = xy[row]
            return read_spot(self.slide, x, y, self.side, *pixels_of)

        reads = read_ahead(read, rows.tolist())
        done = 0
        try:
            while done < len(rows):
                start = time.perf_counter()
                size = min(self._batch, len(rows) - done)
                pixels = [next(reads) for _ in range(size)]
                batch = rows[done : done + size]
                values = self._predict(pixels, batch, tokens, genes)
                done += size
                self._adapt(size, time.perf_counter() - start)
                yield Update("spots", done, len(rows), batch, values)
        finally:
            reads.close()

    def _adapt(self, size: int, seconds: float) -> None:
        """Aim at BATCH_SECONDS a batch: quick results, quick Cancel, a busy device."""
        ideal = size * BATCH_SECONDS / max(seconds, 1e-6)
        self._batch = int(np.clip(ideal, self._batch / 2, self._batch * 2).clip(1, self._largest))

    def _predict(
        self,
        pixels: list[SpotPixels],
        rows: NDArray[np.int64],
        tokens: Tokens,
        genes: Sequence[int] | None,
    ) -> NDArray[np.float32]:
        """(B, G) of one batch; a batch that the device cannot hold is halved and tried again."""
        import torch

        try:
            return self._forward(pixels, rows, tokens, genes)
        except torch.OutOfMemoryError as error:
            if len(pixels) == 1:
                raise self._too_small() from error
        self._free()
        half = len(pixels) // 2
        self._batch = self._largest = half
        return np.concatenate(
            [
                self._predict(pixels[:half], rows[:half], tokens, genes),
                self._predict(pixels[half:], rows[half:], tokens, genes),
            ]
        )

    def _too_small(self) -> OutOfMemory:
        return OutOfMemory(
            f"The memory of {self.device} does not hold one spot of this checkpoint; "
            "close other programs that use it, or predict on the CPU."
        )

    def _free(self) -> None:
        """Give back what torch keeps for later, before trying with less."""
        import torch

        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _forward(
        self,
        pixels: list[SpotPixels],
        rows: NDArray[np.int64],
        tokens: Tokens,
        genes: Sequence[int] | None,
    ) -> NDArray[np.float32]:
        import torch

        tiles = np.stack([p.tiles for p in pixels])
        neighbours = self._encoded(tiles.reshape(-1, *tiles.shape[2:])).reshape(
            *tiles.shape[:2], -1
        )
        mask = torch.as_tensor(np.stack([p.mask for p in pixels]), device=self.device)
        patches = self.normalised(np.stack([p.target for p in pixels]))
        chosen = None if genes is None else torch.as_tensor(genes, device=self.device)
        with torch.inference_mode():
            own = tokens(rows, neighbours[:, neighbours.shape[1] // 2])
            with autocast(self.device):  # the trunk is what costs; decoding stays exact
                z = self.network.fuse(patches, neighbours, mask, own).z.float()
            return self.network.decode(z, chosen).cpu().numpy()

    def normalised(self, patches: NDArray[np.uint8]) -> Tensor:
        """(B, P, P, 3) uint8 -> (B, 3, P, P) float, ImageNet mean and deviation."""
        import torch

        x = torch.from_numpy(patches).to(self.device).permute(0, 3, 1, 2).float() / 255
        mean = x.new_tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
        return (x - mean) / x.new_tensor([0.229, 0.224, 0.225]).view(3, 1, 1)

    @property
    def encoder(self) -> Any:
        """The tile encoder, built when first needed: gated weights may have to be fetched."""
        if self._encoder is None:
            self._encoder = self.checkpoint.tile_encoder(self._encoder_weights).to(self.device)
        return self._encoder


def _context_update(done: int, total: int) -> Update:
    return Update("context", done, total, np.empty(0, np.int64), np.empty((0, 0), np.float32))
