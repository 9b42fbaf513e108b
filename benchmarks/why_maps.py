"""What "why here" could be shown by: maps of a patch and of its neighbours, for one spot and gene.

Signed maps say what a part gives to a gene. Unsigned ones (attention, and the plain rules that
they have to beat) only say how much a part counts, for all genes alike.

A prediction is the gene and the depth of the spot. `DepthOut` takes the depth out that the network
predicts, so that a map can be judged by what is left of the gene.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from why_attention import fusion_attention

from napari_dkan.inference.occlusion import (
    DEFAULT_BLOCKS,
    OccludedTokens,
    attribute_gene,
    compute_mean_color,
    compute_occluded_tokens,
    occlude_spot,
)
from napari_dkan.inference.spot_inputs import compute_global_token, fuse_tokens, gather_spot_inputs
from napari_dkan.model.encoders.combined_encoder import CombinedEncoder, _resize
from napari_dkan.model.encoders.encoder_spec import STAIN_ENCODER
from napari_dkan.model.encoders.stain_encoder import compute_tile_statistics
from napari_dkan.model.network.ensemble import get_linear_path

Map = NDArray[np.float64]
WITH_DEPTH, OF_DEPTH = "covering, with depth", "covering, of the depth alone"


@dataclass(frozen=True, eq=False)
class DepthOut:
    """Predictions after least squares on the depth that the network predicts, over a section.

    The measured depth of a spot does not change when parts of its image are covered, the predicted
    one does. It travels behind the fused tokens as the R numbers of the linear path; a network
    without one has nothing taken out but the mean.

    slopes : (R, G). depth : (R,) and mean : (G,) of the section.
    """

    slopes: Map
    depth: Map
    mean: Map

    @classmethod
    def fit(cls, values: NDArray[np.floating], depth: NDArray[np.floating]) -> DepthOut:
        """From the predictions (N, G) and depths (N, R) of the spots of a section."""
        v, d = (np.asarray(x, np.float64) for x in (values, depth))
        slopes = np.linalg.lstsq(d - d.mean(axis=0), v - v.mean(axis=0), rcond=None)[0]
        return cls(slopes, d.mean(axis=0), v.mean(axis=0))

    def __call__(self, values: NDArray[np.floating], depth: NDArray[np.floating]) -> Map:
        """(N, G) what is left of the values."""
        return values - self.mean - (depth - self.depth) @ self.slopes


def drained(generator: Any) -> Any:
    """What a generator returns."""
    try:
        while True:
            next(generator)
    except StopIteration as end:
        return end.value


@dataclass
class Spot:
    """A place on a slide, and every map of it; patch maps (49,), neighbour maps (K,)."""

    predictor: Any
    x: float
    y: float
    depth_out: DepthOut | None = None

    def depth(self, tokens: Tensor) -> NDArray[np.float32]:
        """(S, R) predicted depth of fused tokens."""
        return tokens[:, self.predictor.network.config.members_dim :].numpy()

    def values(self, tokens: Tensor) -> tuple[Map, Map]:
        """(S, G) predictions of all genes with the depth taken out, and as they are."""
        plain = self.predictor.decode(tokens)
        assert self.depth_out is not None
        return self.depth_out(plain, self.depth(tokens)), plain

    def level(self, tokens: Tensor, gene: int) -> Tensor:
        """(S,) what the predicted depth adds to a gene; maps leave it out, as the window does."""
        path = get_linear_path(self.predictor.checkpoint.network)
        if path is None or not path.is_common_level:
            return tokens.new_zeros(len(tokens))
        return tokens[:, path.token_dim] * path.weights[path.token_dim, gene]

    def _with_depth(self, shown: Map, without: Tensor, gene: int) -> dict[str, Map]:
        """From a covering map (K,) that with the depth in it, and that of the depth alone.

        without : (K, D) tokens with each part covered.
        """
        change = self.level(self.coverings.baseline, gene) - self.level(without, gene)
        of_depth = change.detach().numpy()
        return {WITH_DEPTH: shown + of_depth, OF_DEPTH: of_depth}

    def _beside_depth(self, tokens: Tensor, gene: int) -> Map:
        """(S,) a gene without its level."""
        plain = self.predictor.decode(tokens, [gene])[:, 0]
        return plain - self.level(tokens, gene).detach().numpy()

    @cached_property
    def coverings(self) -> OccludedTokens:
        return occlude_spot(
            self.predictor.prediction_context,
            drained(gather_spot_inputs(self.predictor.prediction_context, self.x, self.y)),
        )

    @property
    def given(self) -> Any:
        return self.coverings.inputs

    @cached_property
    def _exact(self) -> Tensor:
        keep = np.ones((DEFAULT_BLOCKS**2, DEFAULT_BLOCKS**2), bool)
        np.fill_diagonal(keep, False)
        return compute_occluded_tokens(
            self.predictor.prediction_context,
            self.given,
            keep.reshape(-1, DEFAULT_BLOCKS, DEFAULT_BLOCKS),
        )

    def patch_maps(self, gene: int) -> tuple[dict[str, Map], dict[str, Map]]:
        """Signed and unsigned maps of the patch."""
        predictor, c = self.predictor, self.coverings
        base, exact = (self._beside_depth(t, gene) for t in (c.baseline, self._exact))
        shown = attribute_gene(predictor.prediction_context, c, gene)
        dark = 255 - self.given.pixels.mean(axis=2)
        signed = {
            "covering": shown.blocks.ravel(),
            **self._with_depth(shown.blocks.ravel(), c.blocks, gene),
            "covering, no short cut": base - exact,
            "gradient x input": _blocks(self._pixel_gradient(gene)).sum(axis=(1, 3)).ravel(),
        }
        attention = self._attention[0].reshape(2, 2) if len(self._attention[0]) == 4 else None
        side = np.arange(DEFAULT_BLOCKS) * 2 // DEFAULT_BLOCKS
        unsigned = {"dark first": _blocks(dark).mean(axis=(1, 3)).ravel()}
        if attention is not None:
            unsigned["fusion attention"] = attention[np.ix_(side, side)].ravel()
        return signed, unsigned

    def tile_maps(self, gene: int) -> tuple[dict[str, Map], dict[str, Map]]:
        """Signed and unsigned maps of the neighbours."""
        predictor, c = self.predictor, self.coverings
        grid = predictor.checkpoint.network.config.grid
        value, masked = (self._beside_depth(t, gene) for t in (c.baseline, self._masked))
        away = np.hypot(*(np.indices((grid, grid)) - grid // 2)).ravel()
        shown = attribute_gene(predictor.prediction_context, c, gene).tiles.ravel()
        signed = {
            "mean tile instead": shown,
            **self._with_depth(shown, c.tiles, gene),
            "masked out": value - masked,
            "gradient x change": self._tile_gradient(gene),
        }
        return signed, {"fusion attention": self._attention[1], "near first": -away}

    @cached_property
    def _masked(self) -> Tensor:
        given, c = self.given, self.coverings
        with torch.no_grad():
            place = compute_global_token(self.predictor.prediction_context, given, _own(given))
            mask = given.neighbor_mask.repeat(len(given.neighbor_features), 1)
            mask.fill_diagonal_(False)
            return fuse_tokens(
                self.predictor.prediction_context,
                given,
                c.target_tokens,
                given.neighbor_features[None],
                place,
                mask,
            )

    @cached_property
    def _attention(self) -> tuple[Map, Map]:
        """Of target tokens (T,) and of neighbours (K,)."""
        given, c, network = self.given, self.coverings, self.predictor.network
        with torch.no_grad():
            place = compute_global_token(self.predictor.prediction_context, given, _own(given))
            near = self.predictor.global_context.standardize(
                given.neighbor_features[None], given.zone_context, given.window_weights
            )
            both = fusion_attention(
                network, c.target_tokens, near, given.neighbor_mask[None], place
            )
        return both[0][0].numpy(), both[1][0].numpy()

    def _pixel_gradient(self, gene: int) -> Map:
        """(P, P) sum over colours of gradient times (pixel - mean colour), along all paths.

        The stain statistics are differentiable but for the shares above a level.
        """
        predictor, given = self.predictor, self.given
        pixels = torch.from_numpy(given.pixels).permute(2, 0, 1)[None].float().requires_grad_()
        with torch.enable_grad():
            own = _encode_for_gradient(predictor.feature_cache.encoder, pixels)[0]
            shift = pixels.new_tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
            scale = pixels.new_tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
            target = predictor.network.encode_target((pixels / 255 - shift) / scale)
            middle = len(given.neighbor_features) // 2
            near = torch.cat(
                [given.neighbor_features[:middle], own[None], given.neighbor_features[middle + 1 :]]
            )
            place = compute_global_token(predictor.prediction_context, given, own)
            z = fuse_tokens(predictor.prediction_context, given, target, near[None], place)
            value = (predictor.decoder.decode_for_gradient(z, gene) - self.level(z, gene))[0]
            (gradient,) = torch.autograd.grad(value, pixels)
        change = given.pixels.astype(float) - compute_mean_color(given.pixels)
        return (gradient[0].permute(1, 2, 0).numpy() * change).sum(axis=2)

    def _tile_gradient(self, gene: int) -> Map:
        """(K,) gradient times what replacing a neighbour by the mean tile would change."""
        predictor, given = self.predictor, self.given
        with torch.enable_grad():
            near = given.neighbor_features.clone().requires_grad_()
            place = compute_global_token(predictor.prediction_context, given, _own(given))
            z = fuse_tokens(
                predictor.prediction_context, given, self.coverings.target_tokens, near[None], place
            )
            value = (predictor.decoder.decode_for_gradient(z, gene) - self.level(z, gene))[0]
            (gradient,) = torch.autograd.grad(value, near)
        return (gradient * (given.neighbor_features - given.mean_feature)).sum(dim=1).numpy()


def _encode_for_gradient(encoder: Any, pixels: Tensor) -> Tensor:
    """(1, d) features of pixels (1, 3, P, P), as the encoder makes them without a gradient."""
    if not isinstance(encoder, CombinedEncoder):
        return encoder.project(compute_tile_statistics(pixels))
    networks, numbers = iter(encoder.parts.networks), []
    for part in encoder.parts.spec.parts:
        tiles = _resize(pixels, part.px)
        if part.name == STAIN_ENCODER:
            numbers.append(compute_tile_statistics(tiles))
        else:
            network: Any = next(networks)
            numbers.append(network._average_stages((tiles / 255 - network.mean) / network.std))
    return encoder.project(torch.cat(numbers, dim=1))


def blurred(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Another thing to cover with than the maps were made with."""
    from scipy.ndimage import gaussian_filter

    wide = len(pixels) / DEFAULT_BLOCKS
    return np.rint(gaussian_filter(pixels.astype(float), (wide, wide, 0))).astype(np.uint8)


def remaining(order: NDArray[np.int64], steps: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(S, n) what is left when the first 0, ... of the order are gone."""
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank[None] >= steps[:, None]


def _blocks(pixels: Map) -> Map:
    """(P, P) -> (n, P / n, n, P / n); the benchmark's patches divide evenly."""
    side = len(pixels) // DEFAULT_BLOCKS
    return pixels.reshape(DEFAULT_BLOCKS, side, DEFAULT_BLOCKS, side)


def _own(given: Any) -> Tensor:
    return given.neighbor_features[len(given.neighbor_features) // 2]
