"""Stem: a conditional diffusion model of the expression of a spot, given its tile.

Zhu et al., ICLR 2025 (arXiv 2501.15598). Noise is added to the standardised labels, and blocks
whose norms are modulated by tile and noise level (DiT, Peebles & Xie, ICCV 2023) learn to take it
away. A tile is predicted by several samples from noise: their mean is its expression, and their
standard deviation how far apart the spots are that look like it.

Noised labels are ``x = cos(a) labels + sin(a) noise``, with the angle a from 0 (labels) to pi/2
(noise). The network predicts ``v = dx/da = cos(a) noise - sin(a) labels``, from which noise and
labels follow (Salimans & Ho, ICLR 2022), and a sample is the solution of that equation from pi/2
to 0. It has no noise of its own, so it depends on tile and starting noise alone. All tiles start
from the same noise, which is stored with the network: a tile has the same numbers in any batch, and
the differences between tiles are differences of the tiles.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..network.network_config import StackConfig
from ..network.network_interface import ExpressionNetwork, FusedTokens, iter_slices
from .method_configs import StemConfig

MAX_ACTIVATIONS = 4_000_000  # numbers of the tokens of tiles that are sampled at once
MAX_PERIOD = 10_000.0  # of the sines that encode the noise level


class GeneTokens(nn.Module):
    """A token of each gene, of its value and its name, as published: (..., G) -> (..., G, d)."""

    def __init__(self, genes: int, dim: int) -> None:
        super().__init__()
        self.name = nn.Parameter(torch.randn(genes, dim) / math.sqrt(dim))
        self.value = nn.Sequential(nn.Linear(1, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.out = zero_linear(dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        embedded: Tensor = self.value(x[..., None]) + self.name
        return embedded

    def read(self, tokens: Tensor) -> Tensor:
        """Return (..., G) of tokens (..., G, d)."""
        values: Tensor = self.out(tokens)[..., 0]
        return values


class MixedTokens(nn.Module):
    """T tokens, each a learned mixture of all genes: (..., G) -> (..., T, d)."""

    def __init__(self, genes: int, dim: int, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.mix = nn.Linear(genes, tokens * dim)
        self.out = zero_linear(tokens * dim, genes)

    def forward(self, x: Tensor) -> Tensor:
        return torch.unflatten(self.mix(x), -1, (self.tokens, -1))

    def read(self, tokens: Tensor) -> Tensor:
        """Return (..., G) of tokens (..., T, d)."""
        values: Tensor = self.out(tokens.flatten(-2))
        return values


class ModulatedBlock(nn.Module):
    """Attention and feed-forward on x (..., T, d), modulated by a condition (..., d): adaLN-Zero.

    It is the identity before training.
    """

    def __init__(self, dim: int, stack: StackConfig) -> None:
        super().__init__()
        self.heads = stack.heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.project = nn.Linear(dim, dim)
        hidden = int(dim * stack.ratio)
        self.feed = nn.Sequential(
            nn.Linear(dim, hidden),
            nn.GELU(approximate="tanh"),
            nn.Dropout(stack.dropout),
            nn.Linear(hidden, dim),
        )
        self.modulation = zero_linear(dim, 6 * dim)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        modulation = self.modulation(F.silu(condition))[..., None, :].chunk(6, dim=-1)
        shift, scale, gate, feed_shift, feed_scale, feed_gate = modulation
        q, k, v = (
            torch.unflatten(t, -1, (self.heads, -1)).transpose(-3, -2)
            for t in self.qkv(modulate(x, shift, scale)).chunk(3, dim=-1)
        )
        attended = F.scaled_dot_product_attention(q, k, v).transpose(-3, -2).flatten(-2)
        x = x + gate * self.project(attended)
        updated: Tensor = x + feed_gate * self.feed(modulate(x, feed_shift, feed_scale))
        return updated


class Stem(ExpressionNetwork):
    """The noise predictor and its sampler; z is the embedding of the tile, the condition.

    Attributes
    ----------
    noise
        The starting noise (S, G) of the samples: pairs of opposite sign, of variance 1 for each
        gene.
    """

    config: StemConfig
    noise: Tensor
    draws_samples = True

    def __init__(self, config: StemConfig) -> None:
        super().__init__()
        self.config = config
        d = config.dim
        self._register_label_scale()
        self.register_buffer("noise", draw_noise(config.samples, config.genes))
        self.image = nn.Sequential(
            nn.Linear(config.feature_dim, d), nn.SiLU(), nn.Dropout(config.dropout), nn.Linear(d, d)
        )
        self.level = nn.Sequential(nn.Linear(d, d), nn.SiLU(), nn.Linear(d, d))
        self.genes = (
            MixedTokens(config.genes, d, config.tokens)
            if config.tokens
            else GeneTokens(config.genes, d)
        )
        self.blocks = nn.ModuleList(
            ModulatedBlock(d, config.blocks) for _ in range(config.blocks.depth)
        )
        self.modulation = zero_linear(d, 2 * d)

    def fuse_tokens(
        self,
        target: Tensor,
        neighbor_features: Tensor,
        neighbor_mask: Tensor,
        global_tokens: Tensor,
    ) -> FusedTokens:
        """See `ExpressionNetwork.fuse_tokens`; all tokens are the embedding of the own tile."""
        z = self.image(self.own_tile_features(neighbor_features))
        return FusedTokens(z, z, z)

    def predict_velocity(self, x: Tensor, angle: Tensor, z: Tensor) -> Tensor:
        """Predict v (B, S, G) of noised labels x (B, S, G).

        Parameters
        ----------
        angle
            (B, S) or (1, 1), from 0 for labels to pi/2 for noise.
        z
            (B, d).
        """
        condition = z[:, None] + self.level(encode_level(angle, self.config.dim))
        tokens = self.genes(x)
        for block in self.blocks:
            tokens = block(tokens, condition)
        shift, scale = self.modulation(F.silu(condition))[..., None, :].chunk(2, dim=-1)
        velocity: Tensor = self.genes.read(modulate(tokens, shift, scale))
        return velocity

    def sample(self, z: Tensor) -> Tensor:
        """Draw standardised expression (B, S, G) of tiles z (B, d).

        Steps are of the second order (Adams and Bashforth, the first one Euler's): the few steps
        of a first-order sampler make the samples too alike.
        """
        z = z.float()
        x = self.noise.expand(len(z), -1, -1)
        step = math.pi / 2 / self.config.steps
        previous: Tensor | None = None
        for i in range(self.config.steps):
            angle = z.new_full((1, 1), math.pi / 2 - i * step)
            v = self.predict_velocity(x, angle, z)
            x = x - step * (v if previous is None else 1.5 * v - 0.5 * previous)
            previous = v
        return x

    def decode_with_spread(
        self, z: Tensor, genes: Tensor | None = None, gene_tokens: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """See `ExpressionNetwork.decode_with_spread`; over the samples."""
        rows = torch.arange(self.config.genes) if genes is None else genes
        rows = rows.to(self.device)
        n_numbers = (
            self.config.samples * self.config.dim * (self.config.tokens or len(self.noise.T))
        )
        means, spreads = [], []
        for s in iter_slices(max(1, len(z)), max(1, MAX_ACTIVATIONS // n_numbers)):
            samples = self.sample(z[s])[..., rows]
            means.append(samples.mean(dim=1))
            spreads.append(samples.var(dim=1, correction=0).sqrt() if len(samples) else means[-1])
        scale = self.label_std[rows]
        return torch.cat(means) * scale + self.label_mean[rows], torch.cat(spreads) * scale

    def decode(
        self, z: Tensor, genes: Tensor | None = None, gene_tokens: Tensor | None = None
    ) -> Tensor:
        """See `ExpressionNetwork.decode`; the mean of the samples. Gene tokens have no effect."""
        return self.decode_with_spread(z, genes)[0]

    def predict_auxiliary(self, fused: FusedTokens, global_tokens: Tensor) -> dict[str, Tensor]:
        """Predict the mean in a single step, for the disagreement of members.

        At pi/2 there is no trace of the labels in x, so -v is their mean.
        """
        z = fused.z.float()
        x = z.new_zeros(len(z), 1, self.config.genes)
        angle = z.new_full((1, 1), math.pi / 2)
        return {"fused": self.to_label_scale(-self.predict_velocity(x, angle, z)[:, 0])}


def draw_noise(samples: int, genes: int) -> Tensor:
    """Draw noise (S, G) in pairs of opposite sign, scaled to variance 1 over the samples."""
    half = torch.randn(samples // 2, genes)
    half = half / half.square().mean(dim=0).sqrt().clamp_min(1e-6)
    return torch.cat([half, -half])


def encode_level(angle: Tensor, dim: int) -> Tensor:
    """Encode noise levels (...) by sines and cosines of falling frequency, (..., dim)."""
    half = torch.arange((dim + 1) // 2, device=angle.device)
    frequency = MAX_PERIOD ** (-half / len(half))
    # angles of a quarter turn are spread over 1000 steps, as diffusion steps are counted
    phase = (angle * (1000 / (math.pi / 2)))[..., None] * frequency
    return torch.cat([phase.cos(), phase.sin()], dim=-1)[..., :dim]


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Normalise x over its last axis, then shift and scale it by the condition."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


def zero_linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer that starts at zero."""
    layer = nn.Linear(inputs, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
