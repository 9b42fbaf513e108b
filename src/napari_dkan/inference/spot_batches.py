"""The queue of spots of a prediction job, and the computation of one batch of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .cache.keyed_array import pack_keys
from .device import autocast, to_device
from .global_context import CellIndex, ContextWindow
from .patch_features.patch_geometry import (
    PatchKeys,
    compute_neighbor_keys,
    compute_neighbor_masks,
    keys_from_centers,
)
from .patch_features.patch_loader import PatchBlock, PatchLoader, PatchRequest, PatchRequestSubset
from .prediction_progress import DeviceOutOfMemoryError
from .target import Target
from .tile_qc_features import NETWORK_QC_NAMES, compute_network_qc, compute_pixel_qc

if TYPE_CHECKING:
    from torch import Tensor

    from .predictor import Predictor


# Rows in the order wanted; or, given centres (N, 2) in level-0 px, how they are to be ordered
# now, None where that is as it was when last asked.
RowOrder = NDArray[np.int64] | Callable[[NDArray[np.float64]], NDArray[np.int64] | None] | None


class SpotQueue:
    """The rows of a job that are still to be predicted.

    xy : (N, 2) places. groups : (N, 2), equal where rows share their surroundings; a batch is
    always of one group.
    """

    def __init__(
        self, xy: NDArray[np.float64], window_indices: NDArray[np.int64], order: RowOrder = None
    ) -> None:
        self._xy, self._window_indices = xy, window_indices
        self._order_callback = order if callable(order) else None
        fixed = order is not None and not callable(order)
        self._remaining = np.asarray(order, np.int64) if fixed else np.arange(len(xy))
        self._reorder()

    def __len__(self) -> int:
        return len(self._remaining)

    def pop_batch(self, max_rows: int) -> tuple[NDArray[np.int64], CellIndex]:
        """Up to ``most`` rows (B,) of the group that is wanted first, and that group."""
        group = self.next_window
        same = np.flatnonzero((self._window_indices[self._remaining] == group).all(axis=1))[
            :max_rows
        ]
        rows = self._remaining[same]
        self._remaining = np.delete(self._remaining, same)
        return rows, group

    @property
    def next_window(self) -> CellIndex:
        """The group that is wanted first now."""
        self._reorder()
        column, row = self._window_indices[self._remaining[0]]
        return int(column), int(row)

    def drop(self, rows: NDArray[np.int64]) -> None:
        """These rows need nothing any more."""
        self._remaining = self._remaining[~np.isin(self._remaining, rows)]

    def rows_in_window(self, window_index: CellIndex) -> NDArray[np.int64]:
        """All rows of a group, whether done or not."""
        return np.flatnonzero((self._window_indices == window_index).all(axis=1))

    @property
    def remaining_rows(self) -> NDArray[np.int64]:
        return self._remaining

    def _reorder(self) -> None:
        if self._order_callback is not None and len(self._remaining):
            order = self._order_callback(self._xy[self._remaining])
            if order is not None:
                self._remaining = self._remaining[order]


MAX_CONCURRENT_TRUNK_SPOTS = 4  # spots; larger batches keep one core for the window


@dataclass(frozen=True)
class SpotBatch:
    """Spots whose pixels are on their way.

    rows : (B,) of the target, all of one group. around : (B, K, 2) positions of the patches
    around each. mask : (B, K) False where one leaves the slide. tiles : pixels at the encoder's
    size, of which those with new have still to be encoded. patches : the spots' own pixels, at
    the trunk's size.
    """

    rows: NDArray[np.int64]
    window_index: CellIndex
    neighbor_keys: PatchKeys
    neighbor_mask: NDArray[np.bool_]
    tile_request: PatchRequest
    needs_encoding: NDArray[np.bool_]
    patch_request: PatchRequest | PatchRequestSubset


class BatchProcessor:
    """Makes and computes the batches of one target."""

    def __init__(self, predictor: Predictor, target: Target) -> None:
        self._predictor, self._job_target = predictor, target
        self._grid_size = predictor.checkpoint.network.config.grid
        self._patch_px = predictor.checkpoint.patch.px
        # where tiles touch, a tile's neighbours are tiles of the same grid
        self._persist_features = (
            target.grid is not None and target.grid.pitch == predictor.patch_side_px
        )

    def request(
        self,
        rows: NDArray[np.int64],
        window_index: CellIndex,
        loader: PatchLoader,
        running_batch: SpotBatch | None = None,
    ) -> SpotBatch:
        """Start reading what a batch needs and neither is known nor comes with another one."""
        predictor = self._predictor
        xy = self._job_target.spots.xy[rows]
        around = compute_neighbor_keys(xy, predictor.patch_side_px, self._grid_size)
        mask = compute_neighbor_masks(predictor.slide, xy, predictor.patch_side_px, self._grid_size)
        mask &= predictor.feature_cache.find_available(around)
        new = predictor.feature_cache.find_missing(around[mask])
        if running_batch is not None and len(new) and running_batch.needs_encoding.any():
            coming = pack_keys(running_batch.tile_request.keys[running_batch.needs_encoding])
            new = new[~np.isin(pack_keys(new), coming)]
        own, px = keys_from_centers(xy), predictor.feature_cache.tile_px
        # one size for encoder and trunk: what is read once serves both
        keys = new if self._patch_px != px else np.unique(np.concatenate([new, own]), axis=0)
        tiles = loader.request(keys, px, self._find_unread_blocks(around, mask, own, keys, new))
        patches = tiles.subset(own) if self._patch_px == px else loader.request(own, self._patch_px)
        return SpotBatch(
            rows,
            window_index,
            around,
            mask,
            tiles,
            np.isin(pack_keys(keys), pack_keys(new)),
            patches,
        )

    def _find_unread_blocks(
        self,
        neighbor_keys: PatchKeys,
        neighbor_mask: NDArray[np.bool_],
        center_keys: PatchKeys,
        request_keys: PatchKeys,
        missing_keys: PatchKeys,
    ) -> list[PatchBlock]:
        """Spots of which nothing is known: their surroundings are read in one piece."""
        if (
            self._persist_features
        ):  # where tiles touch, each is shared and has to be the same for all
            return []
        row_of = {key: row for row, key in enumerate(pack_keys(request_keys))}
        unread = set(pack_keys(missing_keys))
        made = []
        for each, seen, centre in zip(neighbor_keys, neighbor_mask, center_keys, strict=True):
            cells = np.flatnonzero(seen)
            names = pack_keys(each[cells])
            if unread.issuperset(names):
                rows = np.array([row_of[name] for name in names], np.int64)
                made.append(PatchBlock(centre, self._grid_size, cells, rows))
                unread.difference_update(names)
        return made

    def compute_fused_tokens(
        self, batch: SpotBatch, context_window: ContextWindow, loader: PatchLoader
    ) -> tuple[Tensor, NDArray[np.float32], NDArray[np.bool_]]:
        """Fused tokens (B', D) and evidence (B', E) of the rows that could be read, and which
        those are (B,).

        Somebody waits for a small batch: its trunk runs beside the rest.
        """
        predictor = self._predictor
        own = batch.patch_request.result()
        beside = None
        if len(batch.rows) <= MAX_CONCURRENT_TRUNK_SPOTS:
            beside = loader.submit(self._compute_target_tokens, own.tiles)
        predictor.feature_cache.encode_and_cache(
            batch.tile_request.subset(batch.tile_request.keys[batch.needs_encoding]),
            self._persist_features,
        )
        shape = batch.neighbor_keys.shape
        near, known = predictor.feature_cache.get_features(batch.neighbor_keys.reshape(-1, 2))
        whole = (known.reshape(shape[:2]) | ~batch.neighbor_mask).all(axis=1)
        near = near.reshape(*shape[:2], -1)
        tokens, placed = predictor.global_context.select_global_tokens(
            self._job_target, batch.rows, context_window, near[:, shape[1] // 2]
        )
        target = self._compute_target_tokens(own.tiles) if beside is None else beside.result()
        good = whole & placed & ~own.damaged_mask
        mask = to_device(batch.neighbor_mask, predictor.device)
        pixels = own.tiles
        if not good.all():
            import torch

            kept = torch.from_numpy(np.flatnonzero(good)).to(near.device)
            near, tokens, target, mask = near[kept], tokens[kept], target[kept], mask[kept]
            pixels = pixels[good]
        near = predictor.network.standardize_by_slide(near, context_window.features)
        with predictor.stage_timer("evidence", len(near)):
            looks = compute_pixel_qc(pixels)
        with predictor.stage_timer("fuse", len(near)):
            joined = self._fuse_tokens(target, near, mask, tokens)
        fused, doubts = joined[:, : predictor.token_dim], joined[:, predictor.token_dim :]
        return fused, np.concatenate([looks, doubts.cpu().numpy()], axis=1), good

    def _compute_target_tokens(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Target tokens (B, T, d) of patches (B, P, P, 3)."""
        predictor = self._predictor
        with predictor.stage_timer("copy", len(pixels)):
            patches = predictor.normalize_patches(pixels)
        with predictor.stage_timer("trunk", len(pixels)):
            return self._run_in_halves(predictor.network.encode_target, patches)

    def _fuse_tokens(self, *inputs: Tensor) -> Tensor:
        """Fused tokens, and behind them the network's part of the evidence: (B, D + ...)."""
        import torch

        network = self._predictor.network

        def join(target: Tensor, near: Tensor, mask: Tensor, tokens: Tensor) -> Tensor:
            fused = network.fuse_tokens(target, near, mask, tokens)
            return torch.cat([fused.z.float(), compute_network_qc(network, fused, tokens)], dim=1)

        return self._run_in_halves(join, *inputs)

    def _run_in_halves(self, compute: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """A batch that the device cannot hold is halved and tried again."""
        import torch

        predictor, size = self._predictor, len(inputs[0])
        if not size:
            return inputs[0].new_zeros(0, predictor.token_dim + len(NETWORK_QC_NAMES))
        try:
            # the trunk is what costs; decoding stays exact
            with torch.inference_mode(), autocast(predictor.device):
                return compute(*inputs).float()
        except torch.OutOfMemoryError as error:
            if size == 1:
                raise DeviceOutOfMemoryError(predictor.device) from error
        half = size // 2
        predictor.limit_batch_size(half)
        first, second = ([g[part] for g in inputs] for part in (slice(half), slice(half, None)))
        return torch.cat(
            [self._run_in_halves(compute, *first), self._run_in_halves(compute, *second)]
        )
