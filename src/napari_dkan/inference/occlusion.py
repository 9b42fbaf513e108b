"""Occlusion attribution: change of a spot's prediction when parts of its input are occluded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from .device import autocast
from .device_errors import report_device_errors, run_in_halves
from .prediction_context import PredictionContext
from .spot_inputs import PixelArray, SpotInputs, compute_global_token, fuse_tokens

if TYPE_CHECKING:
    from torch import Tensor

    from .zero_shot_genes import ZeroShotGenes


DEFAULT_BLOCKS = 7  # across a patch: 22 um each of the published 154 um, two or three cells

FillFunction = Callable[[PixelArray], PixelArray]  # color (3,) or pixels of an occluded block


@dataclass(frozen=True)
class OccludedTokens:
    """Fused tokens of a spot with parts of its input occluded, from which any gene is decoded.

    Attributes
    ----------
    baseline : Tensor
        (1, D) nothing occluded.
    blocks : Tensor
        (n * n, D) one block of the patch occluded in trunk and neighborhood, not in the context.
    feature_shifts : Tensor
        (n * n, d) change of the patch's feature by each block, for the effect in the context.
    tiles : Tensor
        (K, D) one neighbor replaced by the mean tile.
    patch, neighborhood : Tensor
        (1, D) the whole patch occluded, or all neighbors replaced.
    """

    inputs: SpotInputs
    target_tokens: Tensor
    baseline: Tensor
    blocks: Tensor
    feature_shifts: Tensor
    tiles: Tensor
    patch: Tensor
    neighborhood: Tensor


@dataclass(frozen=True)
class OcclusionAttribution:
    """Attribution of one gene at one spot: its value less its value with a part occluded.

    Attributes
    ----------
    value : float
        Predicted value; all others are in its units.
    blocks : ndarray
        (n, n) blocks of the patch.
    tiles : ndarray
        (grid, grid) neighbors, NaN in the middle and off the slide.
    patch, neighborhood : float
        Each occluded as a whole.
    is_beside_depth : bool
        Whether blocks and tiles leave out what acts through the predicted depth, which moves all
        genes together. Value, patch and neighborhood contain it.
    """

    value: float
    blocks: NDArray[np.float32]
    tiles: NDArray[np.float32]
    patch: float
    neighborhood: float
    is_beside_depth: bool = False


def compute_mean_color(pixels: PixelArray) -> PixelArray:
    """Mean color (3,) of pixels (P, P, 3)."""
    color: PixelArray = np.rint(pixels.mean(axis=(0, 1))).astype(np.uint8)
    return color


def occlude_blocks(
    pixels: PixelArray, visible_blocks: NDArray[np.bool_], fill: FillFunction = compute_mean_color
) -> PixelArray:
    """Fill blocks of a patch.

    Parameters
    ----------
    pixels : ndarray
        (P, P, 3).
    visible_blocks : ndarray
        (B, n, n) False for blocks to fill.

    Returns
    -------
    ndarray
        (B, P, P, 3) copies of the patch.
    """
    index = np.arange(len(pixels)) * visible_blocks.shape[1] // len(pixels)
    visible = visible_blocks[:, index][:, :, index, None]
    return cast(PixelArray, np.where(visible, pixels, fill(pixels)))


def compute_occluded_tokens(
    context: PredictionContext,
    inputs: SpotInputs,
    visible_blocks: NDArray[np.bool_],
    fill: FillFunction = compute_mean_color,
) -> Tensor:
    """Fused tokens (B, D) of a spot with only some blocks (B, n, n) of its patch visible.

    The whole network is computed for each: exact, and slow because of the context.
    """
    import torch

    with report_device_errors(context.device), torch.no_grad():
        features, target_tokens = _encode_occluded_patch(context, inputs, visible_blocks, fill)
        neighbors = inputs.neighbor_features.repeat(len(visible_blocks), 1, 1)
        neighbors[:, neighbors.shape[1] // 2] = features
        global_tokens = [compute_global_token(context, inputs, feature) for feature in features]
        return fuse_tokens(context, inputs, target_tokens, neighbors, torch.cat(global_tokens))


def occlude_spot(
    context: PredictionContext, inputs: SpotInputs, blocks: int = DEFAULT_BLOCKS
) -> OccludedTokens:
    """Occlude each of blocks x blocks of the patch and each neighbor, in turn."""
    import torch

    tile_count, count = len(inputs.neighbor_features), blocks * blocks
    middle = tile_count // 2
    # One block less in each of the first rows, then no block, then all.
    visible = np.ones((count + 2, count), bool)
    visible[np.arange(count), np.arange(count)] = False
    visible[count] = False
    with report_device_errors(context.device), torch.no_grad():
        features, target_tokens = _encode_occluded_patch(
            context, inputs, visible.reshape(-1, blocks, blocks)
        )
        global_token = compute_global_token(context, inputs, inputs.neighbor_features[middle])
        neighbors = inputs.neighbor_features.repeat(len(visible), 1, 1)
        neighbors[:, middle] = features
        by_block = fuse_tokens(context, inputs, target_tokens, neighbors, global_token)
        occluded_global = compute_global_token(context, inputs, features[count])
        # One neighbor replaced in each of the first rows, then all.
        replaced = inputs.neighbor_features.repeat(tile_count + 1, 1, 1)
        replaced[torch.arange(tile_count), torch.arange(tile_count)] = inputs.mean_feature
        replaced[tile_count] = inputs.mean_feature
        replaced[tile_count, middle] = inputs.neighbor_features[middle]
        by_tile = fuse_tokens(context, inputs, target_tokens[-1:], replaced, global_token)
        patch = fuse_tokens(
            context, inputs, target_tokens[count, None], neighbors[count, None], occluded_global
        )
    return OccludedTokens(
        inputs,
        target_tokens=target_tokens[-1:],
        baseline=by_block[-1:],
        blocks=by_block[:count],
        feature_shifts=features[:count] - features[-1],
        tiles=by_tile[:tile_count],
        patch=patch,
        neighborhood=by_tile[tile_count:],
    )


def attribute_gene(
    context: PredictionContext,
    occluded_tokens: OccludedTokens,
    column: int,
    zero_shot: ZeroShotGenes | None = None,
) -> OcclusionAttribution:
    """Decode the attribution of a column, of the panel or of the zero-shot genes behind it.

    Where the network predicts the depth of a spot apart, blocks and tiles are of the gene beside
    depth: deletion curves beside depth are steeper by them (docs/why.md). The effect of a block in
    the context is computed from the gradient, as the exact effect needs the whole context for
    every block.
    """
    import torch

    occluded, mask = occluded_tokens, occluded_tokens.inputs.neighbor_mask.cpu().numpy()
    tokens = torch.cat(
        [
            occluded.baseline,
            occluded.patch,
            occluded.neighborhood,
            occluded.tiles,
            occluded.blocks,
        ]
    )
    values = context.decoder.decode(tokens, [column], zero_shot)[:, 0]
    value, without_patch, without_neighbors = values[:3].tolist()
    level = _decode_depth(context, tokens, column)
    if level is not None:
        values = values - level
    tiles, blocks = np.split(values[0] - values[3:], [len(mask)])
    tiles[~mask] = tiles[len(mask) // 2] = np.nan
    gradient = _compute_context_gradient(context, occluded, column, zero_shot)
    blocks -= (occluded.feature_shifts @ gradient).cpu().numpy()
    return OcclusionAttribution(
        value,
        _reshape_square(blocks),
        _reshape_square(tiles),
        value - without_patch,
        value - without_neighbors,
        is_beside_depth=level is not None,
    )


def _decode_depth(
    context: PredictionContext, tokens: Tensor, column: int
) -> NDArray[np.float32] | None:
    """(B,) what the predicted depth adds to a gene; None without a path for it or for the gene."""
    from ..model.network.ensemble import get_linear_path

    path = get_linear_path(context.network)
    if path is None or not path.is_common_level or column >= context.network.config.genes:
        return None
    depth, slope = tokens[:, path.token_dim], path.weights[path.token_dim, column]
    return (depth * slope).detach().cpu().numpy()


def _compute_context_gradient(
    context: PredictionContext,
    occluded_tokens: OccludedTokens,
    column: int,
    zero_shot: ZeroShotGenes | None,
) -> Tensor:
    """(d,) gradient of a gene's value by the patch's feature in the context window."""
    import torch

    inputs = occluded_tokens.inputs
    neighbors = inputs.neighbor_features
    with report_device_errors(context.device), torch.enable_grad():
        feature = neighbors[len(neighbors) // 2].clone().requires_grad_()
        global_token = compute_global_token(context, inputs, feature)
        tokens = fuse_tokens(
            context, inputs, occluded_tokens.target_tokens, neighbors[None], global_token
        )
        value = context.decoder.decode_for_gradient(tokens, column, zero_shot)[0]
        if not value.requires_grad:  # a method that sees no context
            return torch.zeros_like(feature)
        gradient: Tensor = torch.autograd.grad(value, feature, allow_unused=True)[0]
    return torch.zeros_like(feature) if gradient is None else gradient


def _encode_occluded_patch(
    context: PredictionContext,
    inputs: SpotInputs,
    visible_blocks: NDArray[np.bool_],
    fill: FillFunction = compute_mean_color,
) -> tuple[Tensor, Tensor]:
    """Features (B, d) and target tokens (B, T, D) of the patch with some of its blocks."""
    # A tensor of inference mode cannot be part of an autograd graph; its copy can.
    features = context.feature_cache.encode(
        occlude_blocks(inputs.encoder_tile, visible_blocks, fill)
    ).clone()

    def encode_target(visible: NDArray[np.bool_]) -> Tensor:
        patches = context.normalize_patches(occlude_blocks(inputs.pixels, visible, fill))
        return context.network.encode_target(patches).float()

    with autocast(context.device):
        return features, run_in_halves(encode_target, [visible_blocks], context.device)


def _reshape_square(values: NDArray[np.float32]) -> NDArray[np.float32]:
    side = round(len(values) ** 0.5)
    return values.reshape(side, side)
