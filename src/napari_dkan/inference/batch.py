"""One batch of spots: its patches asked for, encoded where they are new, and fused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .context import CellIndex, ContextWindow
from .device import autocast, to_device
from .evidence import NETWORK_QC_NAMES, compute_network_qc, compute_pixel_qc
from .job import DeviceOutOfMemoryError
from .patches import PatchKeys, keys_from_centers, compute_neighbor_masks, compute_neighbor_keys
from .reading import PatchRequestSubset, PatchLoader, PatchRequest, PatchBlock
from .rows import pack_keys
from .target import Target

if TYPE_CHECKING:
    from torch import Tensor

    from .engine import Predictor


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
        self._persist_features = target.grid is not None and target.grid.pitch == predictor.patch_side_px

    def request(
        self, rows: NDArray[np.int64], window_index: CellIndex, loader: PatchLoader, running_batch: SpotBatch | None = None
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
        return SpotBatch(rows, window_index, around, mask, tiles, np.isin(pack_keys(keys), pack_keys(new)), patches)

    def _find_unread_blocks(
        self, neighbor_keys: PatchKeys, neighbor_mask: NDArray[np.bool_], center_keys: PatchKeys, request_keys: PatchKeys, missing_keys: PatchKeys
    ) -> list[PatchBlock]:
        """Spots of which nothing is known: their surroundings are read in one piece."""
        if self._persist_features:  # where tiles touch, each is shared and has to be the same for all
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
        predictor.feature_cache.encode_and_cache(batch.tile_request.subset(batch.tile_request.keys[batch.needs_encoding]), self._persist_features)
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
        return torch.cat([self._run_in_halves(compute, *first), self._run_in_halves(compute, *second)])
