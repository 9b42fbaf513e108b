"""One batch of spots: its patches asked for, encoded where they are new, and fused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .context import Cell, Surroundings
from .device import autocast, to_device
from .evidence import NETWORK, of_network, of_pixels
from .job import OutOfMemory
from .patches import Keys, keys_of, neighbour_masks, neighbours
from .reading import Part, Readers, Reading, Window
from .rows import packed
from .target import Target

if TYPE_CHECKING:
    from torch import Tensor

    from .engine import Predictor


BESIDE = 4  # spots; larger batches keep one core for the window


@dataclass(frozen=True)
class Batch:
    """Spots whose pixels are on their way.

    rows : (B,) of the target, all of one group. around : (B, K, 2) positions of the patches
    around each. mask : (B, K) False where one leaves the slide. tiles : pixels at the encoder's
    size, of which those with new have still to be encoded. patches : the spots' own pixels, at
    the trunk's size.
    """

    rows: NDArray[np.int64]
    group: Cell
    around: Keys
    mask: NDArray[np.bool_]
    tiles: Reading
    new: NDArray[np.bool_]
    patches: Reading | Part


class Batches:
    """Makes and computes the batches of one target."""

    def __init__(self, predictor: Predictor, target: Target) -> None:
        self._predictor, self._spots = predictor, target
        self._grid = predictor.checkpoint.network.config.grid
        self._px = predictor.checkpoint.patch.px
        # where tiles touch, a tile's neighbours are tiles of the same grid
        self._lasting = target.grid is not None and target.grid.pitch == predictor.side

    def ask(
        self, rows: NDArray[np.int64], group: Cell, readers: Readers, running: Batch | None = None
    ) -> Batch:
        """Start reading what a batch needs and neither is known nor comes with another one."""
        predictor = self._predictor
        xy = self._spots.spots.xy[rows]
        around = neighbours(xy, predictor.side, self._grid)
        mask = neighbour_masks(predictor.slide, xy, predictor.side, self._grid)
        mask &= predictor.features.attainable(around)
        new = predictor.features.unknown(around[mask])
        if running is not None and len(new) and running.new.any():
            coming = packed(running.tiles.keys[running.new])
            new = new[~np.isin(packed(new), coming)]
        own, px = keys_of(xy), predictor.features.px
        # one size for encoder and trunk: what is read once serves both
        keys = new if self._px != px else np.unique(np.concatenate([new, own]), axis=0)
        tiles = readers.ask(keys, px, self._windows(around, mask, own, keys, new))
        patches = tiles.part(own) if self._px == px else readers.ask(own, self._px)
        return Batch(rows, group, around, mask, tiles, np.isin(packed(keys), packed(new)), patches)

    def _windows(
        self, around: Keys, mask: NDArray[np.bool_], own: Keys, keys: Keys, new: Keys
    ) -> list[Window]:
        """Spots of which nothing is known: their surroundings are read in one piece."""
        if self._lasting:  # where tiles touch, each is shared and has to be the same for all
            return []
        row_of = {key: row for row, key in enumerate(packed(keys))}
        unread = set(packed(new))
        made = []
        for each, seen, centre in zip(around, mask, own, strict=True):
            cells = np.flatnonzero(seen)
            names = packed(each[cells])
            if unread.issuperset(names):
                rows = np.array([row_of[name] for name in names], np.int64)
                made.append(Window(centre, self._grid, cells, rows))
                unread.difference_update(names)
        return made

    def fuse(
        self, batch: Batch, seen: Surroundings, readers: Readers
    ) -> tuple[Tensor, NDArray[np.float32], NDArray[np.bool_]]:
        """Fused tokens (B', D) and evidence (B', E) of the rows that could be read, and which
        those are (B,).

        Somebody waits for a small batch: its trunk runs beside the rest.
        """
        predictor = self._predictor
        own = batch.patches.pixels()
        beside = None
        if len(batch.rows) <= BESIDE:
            beside = readers.submit(self._target, own.tiles)
        predictor.features.learn(batch.tiles.part(batch.tiles.keys[batch.new]), self._lasting)
        shape = batch.around.shape
        near, known = predictor.features.at(batch.around.reshape(-1, 2))
        whole = (known.reshape(shape[:2]) | ~batch.mask).all(axis=1)
        near = near.reshape(*shape[:2], -1)
        tokens, placed = predictor.context.tokens(
            self._spots, batch.rows, seen, near[:, shape[1] // 2]
        )
        target = self._target(own.tiles) if beside is None else beside.result()
        good = whole & placed & ~own.damaged
        mask = to_device(batch.mask, predictor.device)
        pixels = own.tiles
        if not good.all():
            import torch

            kept = torch.from_numpy(np.flatnonzero(good)).to(near.device)
            near, tokens, target, mask = near[kept], tokens[kept], target[kept], mask[kept]
            pixels = pixels[good]
        near = predictor.network.on_slide(near, seen.features)
        with predictor.stages("evidence", len(near)):
            looks = of_pixels(pixels)
        with predictor.stages("fuse", len(near)):
            joined = self._join(target, near, mask, tokens)
        fused, doubts = joined[:, : predictor.width], joined[:, predictor.width :]
        return fused, np.concatenate([looks, doubts.cpu().numpy()], axis=1), good

    def _target(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Target tokens (B, T, d) of patches (B, P, P, 3)."""
        predictor = self._predictor
        with predictor.stages("copy", len(pixels)):
            patches = predictor.normalised(pixels)
        with predictor.stages("trunk", len(pixels)):
            return self._halving(predictor.network.target_tokens, patches)

    def _join(self, *given: Tensor) -> Tensor:
        """Fused tokens, and behind them the network's part of the evidence: (B, D + ...)."""
        import torch

        network = self._predictor.network

        def join(target: Tensor, near: Tensor, mask: Tensor, tokens: Tensor) -> Tensor:
            fused = network.join(target, near, mask, tokens)
            return torch.cat([fused.z.float(), of_network(network, fused, tokens)], dim=1)

        return self._halving(join, *given)

    def _halving(self, compute: Callable[..., Tensor], *given: Tensor) -> Tensor:
        """A batch that the device cannot hold is halved and tried again."""
        import torch

        predictor, size = self._predictor, len(given[0])
        if not size:
            return given[0].new_zeros(0, predictor.width + len(NETWORK))
        try:
            # the trunk is what costs; decoding stays exact
            with torch.inference_mode(), autocast(predictor.device):
                return compute(*given).float()
        except torch.OutOfMemoryError as error:
            if size == 1:
                raise OutOfMemory(predictor.device) from error
        half = size // 2
        predictor.smaller_batches(half)
        first, second = ([g[part] for g in given] for part in (slice(half), slice(half, None)))
        return torch.cat([self._halving(compute, *first), self._halving(compute, *second)])
