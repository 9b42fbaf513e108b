"""The queue of spots of a prediction job, the size of its batches and their computation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .cache.keyed_array import pack_keys
from .context_layout import CellIndex
from .device import autocast, to_device
from .device_errors import run_in_halves
from .global_context import ZoneContext
from .patch_features.patch_geometry import (
    PatchKeys,
    compute_neighbor_keys,
    compute_neighbor_masks,
    keys_from_centers,
)
from .patch_features.patch_loader import PatchBlock, PatchLoader, PatchRequest, PatchRequestSubset
from .prediction_context import PredictionContext
from .target import Target, TargetKind
from .tile_qc_features import NETWORK_QC_NAMES, compute_network_qc, compute_pixel_qc

if TYPE_CHECKING:
    import torch
    from torch import Tensor


# Rows in their order of prediction; or a function from the centers (N, 2) of the remaining spots
# in level-0 px to their new order, None where the order did not change since its last call.
RowOrder = NDArray[np.int64] | Callable[[NDArray[np.float64]], NDArray[np.int64] | None] | None

TARGET_BATCH_SECONDS = 0.25  # a job is canceled, and shows its results, after each batch
MAX_BATCH_SIZE = 256
FIXED_BATCH_SIZE = {"cpu": 32, "gpu": 128}
MAX_CONCURRENT_TRUNK_SPOTS = 4  # larger batches leave one core to the window


class BatchSizeController:
    """Choose the number of spots of the next batch.

    Attributes
    ----------
    size : int
        Spots of the next batch.
    max_size : int
        Upper limit of the size.
    is_fixed : bool
        Whether the size does not follow the measured time.
    """

    def __init__(self) -> None:
        self.size = 4
        self.max_size = MAX_BATCH_SIZE
        self.is_fixed = False

    def adapt(self, count: int, seconds: float) -> None:
        """Aim at `TARGET_BATCH_SECONDS` a batch, given the time of the last one."""
        if self.is_fixed:
            return
        ideal = count * TARGET_BATCH_SECONDS / max(seconds, 1e-6)
        self.size = int(np.clip(ideal, self.size / 2, self.size * 2).clip(1, self.max_size))

    def fix(self, device: torch.device) -> None:
        """Use one size whatever the measured time.

        A matrix product rounds by its size: with one size the same job gives the same values to
        the last bit.
        """
        self.is_fixed = True
        self.size = FIXED_BATCH_SIZE["cpu" if device.type == "cpu" else "gpu"]

    def limit(self, max_size: int) -> None:
        """Make no batch larger than this from now on."""
        self.size = self.max_size = max_size


class SpotQueue:
    """The rows of a job that are still to be predicted.

    Parameters
    ----------
    xy : ndarray
        (N, 2) centers of the spots in level-0 px.
    zones : ndarray
        (N, 2) zones of the context windows; all spots of a batch have the same one.
    order : RowOrder
        Rows in their order, or a function that orders the remaining spots before each batch. When
        None a zone is finished before the next one.
    """

    def __init__(
        self, xy: NDArray[np.float64], zones: NDArray[np.int64], order: RowOrder = None
    ) -> None:
        self._xy, self._zones = xy, zones
        self._order_callback = order if callable(order) else None
        fixed = order is not None and not callable(order)
        self._remaining = np.asarray(order, np.int64) if fixed else np.lexsort(zones.T)
        self._reorder()

    def __len__(self) -> int:
        return len(self._remaining)

    def pop_batch(self, max_rows: int) -> tuple[NDArray[np.int64], CellIndex]:
        """Take up to ``max_rows`` rows (B,) of the first zone, and that zone."""
        zone = self.next_zone
        in_zone = (self._zones[self._remaining] == zone).all(axis=1)
        positions = np.flatnonzero(in_zone)[:max_rows]
        rows = self._remaining[positions]
        self._remaining = np.delete(self._remaining, positions)
        return rows, zone

    @property
    def next_zone(self) -> CellIndex:
        """Zone of the first remaining row, after the rows are ordered again."""
        self._reorder()
        column, row = self._zones[self._remaining[0]]
        return int(column), int(row)

    def drop(self, rows: NDArray[np.int64]) -> None:
        """Remove rows that are predicted already."""
        self._remaining = self._remaining[~np.isin(self._remaining, rows)]

    @property
    def remaining_rows(self) -> NDArray[np.int64]:
        """(N,) rows in their order."""
        return self._remaining

    def _reorder(self) -> None:
        if self._order_callback is not None and len(self._remaining):
            order = self._order_callback(self._xy[self._remaining])
            if order is not None:
                self._remaining = self._remaining[order]


@dataclass(frozen=True)
class SpotBatch:
    """Spots whose pixels are being read.

    Attributes
    ----------
    rows : ndarray
        (B,) rows of the target, all of one zone.
    neighbor_keys : ndarray
        (B, K, 2) keys of the patches around each spot.
    neighbor_mask : ndarray
        (B, K) False where a patch is not on the slide.
    tile_request : PatchRequest
        Patches at the encoder's size.
    needs_encoding : ndarray
        Patches of ``tile_request`` without a cached feature.
    patch_request : PatchRequest or PatchRequestSubset
        The spots' own patches at the trunk's size.
    """

    rows: NDArray[np.int64]
    neighbor_keys: PatchKeys
    neighbor_mask: NDArray[np.bool_]
    tile_request: PatchRequest
    needs_encoding: NDArray[np.bool_]
    patch_request: PatchRequest | PatchRequestSubset


class BatchProcessor:
    """Read and compute the batches of one target."""

    def __init__(
        self, context: PredictionContext, target: Target, batch_sizes: BatchSizeController
    ) -> None:
        self._context, self._job_target, self._batch_sizes = context, target, batch_sizes
        # A tile's neighbors are tiles of the same grid where its tiles touch.
        self._tiles_touch = target.grid is not None and target.grid.pitch == context.patch_side_px
        # A measured section is compared again; tiles of a sparse grid have tokens on disk.
        self._persist_features = self._tiles_touch or target.kind is TargetKind.ARRAY

    def request(
        self,
        rows: NDArray[np.int64],
        loader: PatchLoader,
        running_batch: SpotBatch | None = None,
    ) -> SpotBatch:
        """Start reading the patches of a batch that are neither cached nor in another batch."""
        context, features = self._context, self._context.feature_cache
        side, grid_size = context.patch_side_px, context.grid_size
        xy = self._job_target.spots.xy[rows]
        neighbor_keys = compute_neighbor_keys(xy, side, grid_size)
        mask = compute_neighbor_masks(context.slide, xy, side, grid_size)
        mask &= features.find_available(neighbor_keys)
        missing = features.find_missing(neighbor_keys[mask])
        if running_batch is not None and len(missing) and running_batch.needs_encoding.any():
            running = pack_keys(running_batch.tile_request.keys[running_batch.needs_encoding])
            missing = missing[~np.isin(pack_keys(missing), running)]
        center_keys, tile_px = keys_from_centers(xy), features.tile_px
        # Encoder and trunk share one read where they take patches of the same size.
        is_shared = context.patch_px == tile_px
        keys = missing
        if is_shared:
            keys = np.unique(np.concatenate([missing, center_keys]), axis=0)
        blocks = self._find_unread_blocks(neighbor_keys, mask, center_keys, keys, missing)
        tiles = loader.request(keys, tile_px, blocks)
        return SpotBatch(
            rows,
            neighbor_keys,
            mask,
            tiles,
            np.isin(pack_keys(keys), pack_keys(missing)),
            tiles.subset(center_keys)
            if is_shared
            else loader.request(center_keys, context.patch_px),
        )

    def _find_unread_blocks(
        self,
        neighbor_keys: PatchKeys,
        neighbor_mask: NDArray[np.bool_],
        center_keys: PatchKeys,
        request_keys: PatchKeys,
        missing_keys: PatchKeys,
    ) -> list[PatchBlock]:
        """Neighborhoods without any cached patch: each is read as one block."""
        # Touching tiles share their patches, which must have the same pixels for all of them.
        if self._tiles_touch:
            return []
        row_by_key = {key: row for row, key in enumerate(pack_keys(request_keys))}
        unread = set(pack_keys(missing_keys))
        blocks = []
        for keys, mask, center in zip(neighbor_keys, neighbor_mask, center_keys, strict=True):
            cells = np.flatnonzero(mask)
            packed = pack_keys(keys[cells])
            if unread.issuperset(packed):
                rows = np.array([row_by_key[key] for key in packed], np.int64)
                blocks.append(PatchBlock(center, self._context.grid_size, cells, rows))
                unread.difference_update(packed)
        return blocks

    def compute_fused_tokens(
        self, batch: SpotBatch, zone_context: ZoneContext, loader: PatchLoader
    ) -> tuple[Tensor, NDArray[np.float32], NDArray[np.bool_]]:
        """Compute a batch; the trunk of a small one runs concurrently with the encoder.

        Returns
        -------
        tuple
            Fused tokens (B', D) and quality-control features (B', E) of the rows that could be
            read, and the mask (B,) of these rows.
        """
        context, features = self._context, self._context.feature_cache
        patches = batch.patch_request.result()
        trunk_task = None
        if len(batch.rows) <= MAX_CONCURRENT_TRUNK_SPOTS:
            trunk_task = loader.submit(self._compute_target_tokens, patches.tiles)
        missing_keys = batch.tile_request.keys[batch.needs_encoding]
        features.encode_and_cache(batch.tile_request.subset(missing_keys), self._persist_features)
        shape = batch.neighbor_keys.shape
        flat_features, known = features.get_features(batch.neighbor_keys.reshape(-1, 2))
        neighbors = flat_features.reshape(*shape[:2], -1)
        is_complete = (known.reshape(shape[:2]) | ~batch.neighbor_mask).all(axis=1)
        windows = context.global_context
        weights = windows.compute_weights(self._job_target, batch.rows, zone_context)
        global_tokens, has_global = windows.select_global_tokens(
            self._job_target, batch.rows, zone_context, weights, neighbors[:, shape[1] // 2]
        )
        neighbors = windows.standardize(neighbors, zone_context, weights)
        target_tokens = (
            self._compute_target_tokens(patches.tiles)
            if trunk_task is None
            else trunk_task.result()
        )
        good = is_complete & has_global & ~patches.damaged_mask
        mask = to_device(batch.neighbor_mask, context.device)
        pixels = patches.tiles
        if not good.all():
            import torch

            rows = torch.from_numpy(np.flatnonzero(good)).to(neighbors.device)
            neighbors, global_tokens = neighbors[rows], global_tokens[rows]
            target_tokens, mask, pixels = target_tokens[rows], mask[rows], pixels[good]
        with context.stage_timer("evidence", len(neighbors)):
            pixel_qc = compute_pixel_qc(pixels)
        with context.stage_timer("fuse", len(neighbors)):
            fused = self._fuse_tokens(target_tokens, neighbors, mask, global_tokens)
        tokens, network_qc = fused[:, : context.token_dim], fused[:, context.token_dim :]
        return tokens, np.concatenate([pixel_qc, network_qc.cpu().numpy()], axis=1), good

    def _compute_target_tokens(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Target tokens (B, T, d) of patches (B, P, P, 3)."""
        context = self._context
        with context.stage_timer("copy", len(pixels)):
            patches = context.normalize_patches(pixels)
        with context.stage_timer("trunk", len(pixels)):
            return self._run_in_halves(context.network.encode_target, patches)

    def _fuse_tokens(self, *inputs: Tensor) -> Tensor:
        """Fused tokens followed by the network's quality-control features: (B, D + ...)."""
        import torch

        network = self._context.network

        def fuse(target: Tensor, neighbors: Tensor, mask: Tensor, global_tokens: Tensor) -> Tensor:
            fused = network.fuse_tokens(target, neighbors, mask, global_tokens)
            network_qc = compute_network_qc(network, fused, global_tokens)
            return torch.cat([fused.z.float(), network_qc], dim=1)

        return self._run_in_halves(fuse, *inputs)

    def _run_in_halves(self, compute: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """Halve a batch that the device cannot hold, and make no larger ones from now on."""
        import torch

        context = self._context
        if not len(inputs[0]):
            return inputs[0].new_zeros(0, context.token_dim + len(NETWORK_QC_NAMES))
        # Mixed precision pays in the trunk; decoding is computed in float32.
        with torch.inference_mode(), autocast(context.device):
            return run_in_halves(
                lambda *rows: compute(*rows).float(),
                inputs,
                context.device,
                self._batch_sizes.limit,
            )
