"""The network's inputs of one spot, and its fused token from variants of them."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import DamagedTileError
from ..spatial.spots import Spots
from .device import autocast, to_device
from .device_errors import report_device_errors, run_in_halves
from .global_context import ZoneContext, blend
from .patch_features.patch_loader import open_patch_loader
from .prediction_context import PredictionContext
from .prediction_progress import PredictionUpdate
from .spot_batches import BatchProcessor, BatchSizeController
from .target import Target, TargetKind

if TYPE_CHECKING:
    from torch import Tensor

PixelArray = NDArray[np.uint8]


@dataclass(frozen=True)
class SpotInputs:
    """The network's inputs of one spot.

    Attributes
    ----------
    pixels : ndarray
        (P, P, 3) patch as the trunk takes it.
    encoder_tile : ndarray
        (px, px, 3) patch as the tile encoder takes it.
    neighbor_features : Tensor
        (K, d) features of the patches around the spot, its own in the middle.
    neighbor_mask : Tensor
        (K,) False where a patch is not on the slide.
    zone_context : ZoneContext
        The windows of the spot.
    window_weights : Tensor
        (1, W) their weights.
    point_contexts : tuple
        Of each window the features (M - 1, d) without the spot's cell, and the cells (M, 2) of
        these features and, last, of the spot.
    """

    pixels: PixelArray
    encoder_tile: PixelArray
    neighbor_features: Tensor
    neighbor_mask: Tensor
    zone_context: ZoneContext
    window_weights: Tensor
    point_contexts: tuple[tuple[Tensor, NDArray[np.int64]], ...]

    @property
    def mean_feature(self) -> Tensor:
        """(d,) mean feature of the windows' tiles."""
        means = [window.features.mean(dim=0)[None] for window in self.zone_context.windows]
        return blend(means, self.window_weights)[0]


def gather_spot_inputs(
    context: PredictionContext, x: float, y: float
) -> Generator[PredictionUpdate, None, SpotInputs]:
    """Read and encode the inputs of a click at (x, y) in level-0 px, cached ones excepted.

    Raises
    ------
    DkanError
        When the slide is gone, or damaged under the point.
    """
    xy = np.array([[x, y]])
    target, row = Target(TargetKind.POINTS, Spots(xy)), np.arange(1)
    global_context, features = context.global_context, context.feature_cache
    column, zone_row = global_context.find_zones(target)[0].tolist()
    with (
        report_device_errors(context.device),
        open_patch_loader(
            context.patch_reader, context.patch_side_px, context.stage_timer
        ) as loader,
    ):
        zone_context = yield from global_context.compute_context(target, (column, zone_row), loader)
        processor = BatchProcessor(context, target, BatchSizeController())
        batch = processor.request(row, loader)
        patches = batch.patch_request.result()
        features.encode_and_cache(
            batch.tile_request.subset(batch.tile_request.keys[batch.needs_encoding]), persist=False
        )
        tiles = patches
        if context.patch_px != features.tile_px:
            center_keys = batch.neighbor_keys[:, batch.neighbor_keys.shape[1] // 2]
            tiles = loader.request(center_keys, features.tile_px).result()
    if patches.damaged_mask.any() or tiles.damaged_mask.any():
        raise DamagedTileError(
            f"The slide {context.slide.label} is damaged under that click; click elsewhere, "
            "or export the slide again."
        )
    neighbor_features, _ = features.get_features(batch.neighbor_keys[0])
    mask = to_device(batch.neighbor_mask[0], context.device)
    return SpotInputs(
        patches.tiles[0],
        tiles.tiles[0],
        neighbor_features,
        mask,
        zone_context,
        global_context.compute_weights(target, row, zone_context),
        tuple(global_context.select_point_context(xy[0], w) for w in zone_context.windows),
    )


def compute_global_token(
    context: PredictionContext, inputs: SpotInputs, center_feature: Tensor
) -> Tensor:
    """(1, D) global token of the spot with ``center_feature`` (d,) as its patch's feature."""
    import torch

    tokens = []
    for others, context_cells in inputs.point_contexts:
        cells = torch.as_tensor(context_cells, device=center_feature.device)
        last = torch.tensor([len(cells) - 1], device=center_feature.device)
        features = torch.cat([others, center_feature[None]])
        tokens.append(context.network.encode_global(features, cells, last))
    return blend(tokens, inputs.window_weights)


def fuse_tokens(
    context: PredictionContext,
    inputs: SpotInputs,
    target_tokens: Tensor,
    neighbor_features: Tensor,
    global_token: Tensor,
    mask: Tensor | None = None,
) -> Tensor:
    """Fuse tokens of one or more variants of a spot; a single row of an input serves all.

    Parameters
    ----------
    target_tokens : Tensor
        (B, T, D).
    neighbor_features : Tensor
        (B, K, d), not standardized.
    global_token : Tensor
        (B, D).
    mask : Tensor, optional
        (B, K); that of the inputs when None.

    Returns
    -------
    Tensor
        (B, D) fused tokens.
    """
    network = context.network
    standardized = context.global_context.standardize(
        neighbor_features, inputs.zone_context, inputs.window_weights
    )
    parts = (
        target_tokens,
        standardized,
        inputs.neighbor_mask[None] if mask is None else mask,
        global_token,
    )
    count = max(map(len, parts))
    rows = [p.expand(count, *p.shape[1:]) for p in parts]
    with autocast(context.device):
        return run_in_halves(
            lambda *rows: network.fuse_tokens(*rows).z.float(), rows, context.device
        )
