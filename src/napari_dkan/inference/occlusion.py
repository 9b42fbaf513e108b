"""Occlusion attribution: how the prediction at one spot changes when parts of its input are covered."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import DamagedTileError
from ..spatial.spots import Spots
from .device import autocast, to_device
from .global_context import ContextWindow
from .patch_features.patch_loader import open_patch_loader
from .prediction_progress import PredictionUpdate
from .spot_batches import BatchProcessor
from .target import Target, TargetKind

if TYPE_CHECKING:
    from torch import Tensor

    from .predictor import Predictor
    from .zero_shot_genes import ZeroShotGenes


DEFAULT_BLOCKS = 7  # across a patch: 22 um each of the published 154 um, two or three cells

PixelArray = NDArray[np.uint8]
FillFunction = Callable[[PixelArray], PixelArray]  # what a covered block shows, for a patch


@dataclass(frozen=True)
class SpotInputs:
    """What the network is given of one spot.

    pixels (P, P, 3) as the trunk takes them, tile (px, px, 3) as the encoder does; near (K, d)
    features of the patches around, its own in the middle; mask (K,) False off the slide; seen :
    its slide, of which others (M - 1, d) and cells (M, 2), its own place last, are what it sees.
    """

    pixels: PixelArray
    encoder_tile: PixelArray
    neighbor_features: Tensor
    neighbor_mask: Tensor
    context_window: ContextWindow
    context_features: Tensor
    context_cells: NDArray[np.int64]

    @property
    def mean_feature(self) -> Tensor:
        """(d,) feature of the slide's mean tile."""
        return self.context_window.features.mean(dim=0)


@dataclass(frozen=True)
class OccludedTokens:
    """Fused tokens (., D) of a spot as it is and with parts covered; any gene is decoded later.

    blocks (n * n, D) : a block of the patch covered, but not in its place on the slide; moved
    (n * n, d) : what that does to the patch's feature, from which follows the rest. tiles (K, D) :
    a neighbour covered. patch, around (1, D) : the whole patch, all its neighbours.
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
    """What parts give to one gene at one spot: its value less its value with the part covered.

    In the units of value. blocks (n, n) of the patch; tiles (grid, grid), NaN in the middle and
    off the slide; patch, around : covered as a whole.
    """

    value: float
    blocks: NDArray[np.float32]
    tiles: NDArray[np.float32]
    patch: float
    neighborhood: float


def gather_spot_inputs(
    predictor: Predictor, x: float, y: float
) -> Generator[PredictionUpdate, None, SpotInputs]:
    """What a click at (x, y), level-0 px, gives the network; quick where it was clicked before.

    Raises DkanError as a click does (the slide gone, or damaged under that place).
    """
    xy = np.array([[x, y]])
    target, row = Target(TargetKind.POINTS, Spots(xy)), np.arange(1)
    context, features = predictor.global_context, predictor.feature_cache
    column, line = context.find_window_indices(target)[0].tolist()
    with open_patch_loader(
        predictor.patch_reader, predictor.patch_side_px, predictor.stage_timer
    ) as pool:
        seen = yield from context.compute_window(target, row, (column, line), pool)
        batch = BatchProcessor(predictor, target).request(row, (column, line), pool)
        own = batch.patch_request.result()
        features.encode_and_cache(
            batch.tile_request.subset(batch.tile_request.keys[batch.needs_encoding]), persist=False
        )
        tiles = own if predictor.checkpoint.patch.px == features.tile_px else None
        if tiles is None:
            middle = batch.neighbor_keys[:, batch.neighbor_keys.shape[1] // 2]
            tiles = pool.request(middle, features.tile_px).result()
    if own.damaged_mask.any() or tiles.damaged_mask.any():
        raise DamagedTileError(
            f"The slide {predictor.slide.label} is damaged under that click; click elsewhere, "
            "or export the slide again."
        )
    others, cells = context.select_point_context(xy[0], seen)
    near, _ = features.get_features(batch.neighbor_keys[0])
    mask = to_device(batch.neighbor_mask[0], predictor.device)
    return SpotInputs(own.tiles[0], tiles.tiles[0], near, mask, seen, others, cells)


def compute_mean_color(pixels: PixelArray) -> PixelArray:
    """(3,) of pixels (P, P, 3)."""
    return np.rint(pixels.mean(axis=(0, 1))).astype(np.uint8)


def occlude_blocks(
    pixels: PixelArray, visible_blocks: NDArray[np.bool_], fill: FillFunction = compute_mean_color
) -> PixelArray:
    """Copies (B, P, P, 3) of pixels (P, P, 3), painted over where keep (B, n, n) is False."""
    index = np.arange(len(pixels)) * visible_blocks.shape[1] // len(pixels)
    return np.where(visible_blocks[:, index][:, :, index, None], pixels, fill(pixels))


def compute_occluded_tokens(
    predictor: Predictor,
    inputs: SpotInputs,
    visible_blocks: NDArray[np.bool_],
    fill: FillFunction = compute_mean_color,
) -> Tensor:
    """Fused tokens (B, D) of a spot of whose patch only some blocks, keep (B, n, n), are seen.

    The whole network is asked afresh for each: exact, and slow because of the slide.
    """
    import torch

    with torch.no_grad():
        own, target = _encode_occluded_patch(predictor, inputs, visible_blocks, fill)
        near = inputs.neighbor_features.repeat(len(visible_blocks), 1, 1)
        near[:, near.shape[1] // 2] = own
        places = torch.cat([compute_global_token(predictor, inputs, feature) for feature in own])
        return fuse_tokens(predictor, inputs, target, near, places)


def occlude_spot(
    predictor: Predictor, inputs: SpotInputs, blocks: int = DEFAULT_BLOCKS
) -> OccludedTokens:
    """Cover each block of the patch and each neighbour, in turn."""
    import torch

    tiles, count = len(inputs.neighbor_features), blocks * blocks
    middle = tiles // 2
    keep = np.ones((count + 2, count), bool)  # one block less each, then no block, then all
    keep[np.arange(count), np.arange(count)] = False
    keep[count] = False
    with torch.no_grad():
        own, target = _encode_occluded_patch(predictor, inputs, keep.reshape(-1, blocks, blocks))
        place = compute_global_token(predictor, inputs, inputs.neighbor_features[middle])
        near = inputs.neighbor_features.repeat(len(keep), 1, 1)
        near[:, middle] = own
        whole = fuse_tokens(predictor, inputs, target, near, place)
        bare = compute_global_token(predictor, inputs, own[count])
        without = inputs.neighbor_features.repeat(
            tiles + 1, 1, 1
        )  # one neighbour less each, then all
        without[torch.arange(tiles), torch.arange(tiles)] = inputs.mean_feature
        without[tiles] = inputs.mean_feature
        without[tiles, middle] = inputs.neighbor_features[middle]
        alone = fuse_tokens(predictor, inputs, target[-1:], without, place)
        patch = fuse_tokens(predictor, inputs, target[count, None], near[count, None], bare)
    return OccludedTokens(
        inputs,
        target_tokens=target[-1:],
        baseline=whole[-1:],
        blocks=whole[:count],
        feature_shifts=own[:count] - own[-1],
        tiles=alone[:tiles],
        patch=patch,
        neighborhood=alone[tiles:],
    )


def attribute_gene(
    predictor: Predictor,
    occluded_tokens: OccludedTokens,
    column: int,
    zero_shot: ZeroShotGenes | None = None,
) -> OcclusionAttribution:
    """What each part gives to a gene; column : of the panel, then of the zero-shot genes.

    What a block gives through its place on the slide is taken from the gradient there, or the
    whole slide would have to be looked at once for every block.
    """
    import torch

    c, mask = occluded_tokens, occluded_tokens.inputs.neighbor_mask.cpu().numpy()
    tokens = torch.cat([c.baseline, c.patch, c.neighborhood, c.tiles, c.blocks])
    values = predictor.decode(tokens, [column], zero_shot)[:, 0]
    value, patch, around = values[:3].tolist()
    tiles, blocks = np.split(value - values[3:], [len(mask)])
    tiles[~mask] = tiles[len(mask) // 2] = np.nan
    slope = _compute_context_gradient(
        predictor, occluded_tokens, *predictor.decoder.get_gene_token(column, zero_shot)
    )
    blocks -= (c.feature_shifts @ slope).cpu().numpy()
    return OcclusionAttribution(
        value, _reshape_square(blocks), _reshape_square(tiles), value - patch, value - around
    )


def _compute_context_gradient(
    predictor: Predictor, occluded_tokens: OccludedTokens, gene_token: Tensor, value_scale: Tensor
) -> Tensor:
    """(d,) how a gene's value changes with the patch's feature in its place on the slide."""
    import torch

    given = occluded_tokens.inputs
    with torch.enable_grad():
        own = given.neighbor_features[len(given.neighbor_features) // 2].clone().requires_grad_()
        place = compute_global_token(predictor, given, own)
        z = fuse_tokens(
            predictor, given, occluded_tokens.target_tokens, given.neighbor_features[None], place
        )
        value = predictor.network.decode_gene_tokens(z, gene_token)[0, 0]
        slope: Tensor = torch.autograd.grad(value, own)[0]
    return slope * value_scale


def _encode_occluded_patch(
    predictor: Predictor,
    inputs: SpotInputs,
    visible_blocks: NDArray[np.bool_],
    fill: FillFunction = compute_mean_color,
) -> tuple[Tensor, Tensor]:
    """Features (B, d) and target tokens (B, T, D) of the patch with some of its blocks."""
    # What is made in inference mode cannot become part of a graph; a copy can.
    own = predictor.feature_cache.encode(
        occlude_blocks(inputs.encoder_tile, visible_blocks, fill)
    ).clone()
    with autocast(predictor.device):
        patches = predictor.normalize_patches(occlude_blocks(inputs.pixels, visible_blocks, fill))
        return own, predictor.network.encode_target(patches).float()


def compute_global_token(
    predictor: Predictor, inputs: SpotInputs, center_feature: Tensor
) -> Tensor:
    """(1, D) global token of the spot, were its patch's feature own (d,)."""
    import torch

    cells = torch.as_tensor(inputs.context_cells, device=center_feature.device)
    last = torch.tensor([len(cells) - 1], device=center_feature.device)
    features = torch.cat([inputs.context_features, center_feature[None]])
    return predictor.network.encode_global(features, cells, last)


def fuse_tokens(
    predictor: Predictor,
    inputs: SpotInputs,
    target_tokens: Tensor,
    neighbor_features: Tensor,
    global_token: Tensor,
    mask: Tensor | None = None,
) -> Tensor:
    """Fused tokens (B, D) of target (B, T, D), raw near (B, K, d), place (B, D) and mask (B, K);
    a single one of any serves all."""
    network = predictor.network
    neighbor_features = network.standardize_by_slide(
        neighbor_features, inputs.context_window.features
    )
    parts = (
        target_tokens,
        neighbor_features,
        inputs.neighbor_mask[None] if mask is None else mask,
        global_token,
    )
    count = max(map(len, parts))
    with autocast(predictor.device):
        return network.fuse_tokens(*(p.expand(count, *p.shape[1:]) for p in parts)).z.float()


def _reshape_square(values: NDArray[np.float32]) -> NDArray[np.float32]:
    side = round(len(values) ** 0.5)
    return values.reshape(side, side)
