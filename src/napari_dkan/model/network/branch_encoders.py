"""Encoders of DKAN's branches: target trunk, position encoding, global and expression encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import CheckpointError, SpotsError
from .attention_blocks import Transformer
from .dkan_config import MultiScaleConfig


class PositionEncoding(nn.Module):
    """Add to each token a depthwise k x k convolution of the array of tokens at its cell.

    This equals scattering the tokens on a dense grid (empty cells zero), a convolution with
    padding k // 2, and gathering, but only the cells that exist are visited: memory does not grow
    with the extent of the array, and the rows can be in any order. As published, the kernel's
    first axis runs along position axis 1 and its second along position axis 0.
    """

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(dim))
        nn.init.uniform_(self.weight, -1 / kernel, 1 / kernel)

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Encode tokens (N, dim) at integer positions (N, 2) -> (N, dim).

        Raises SpotsError with the first position that two rows share.
        """
        radius = self.weight.shape[-1] // 2
        # With a margin of the radius on every side, keys of different cells differ.
        cell = positions - positions.amin(dim=0) + radius
        width = int(cell[:, 1].max()) + radius + 1
        key = cell[:, 0] * width + cell[:, 1]
        sorted_keys, order = key.sort()
        _raise_on_duplicates(sorted_keys, order, positions)
        step = torch.arange(-radius, radius + 1, device=key.device)
        # The last axis is kernel axis 0, then 1.
        neighbor_keys = key[:, None] + (step * width + step[:, None]).flatten()
        rank = torch.searchsorted(sorted_keys, neighbor_keys).clamp_(max=len(sorted_keys) - 1)
        exists = sorted_keys[rank] == neighbor_keys
        neighbors = tokens[order[rank]] * exists[..., None]  # (N, k * k, dim), empty cells zero
        kernel = self.weight.flatten(1).to(neighbors.dtype)
        return tokens + self.bias + torch.einsum("nkd,dk->nd", neighbors, kernel)


def _raise_on_duplicates(sorted_keys: Tensor, order: Tensor, positions: Tensor) -> None:
    duplicates = torch.nonzero(sorted_keys[1:] == sorted_keys[:-1]).squeeze(1)
    if len(duplicates) == 0:
        return
    a, b = positions[order[duplicates[0]]].tolist()
    count = int((sorted_keys == sorted_keys[duplicates[0]]).sum())
    others = len(duplicates) - count + 1
    more = f" and {others} more rows repeat others" if others else ""
    raise SpotsError(
        f"{count} spots share the array position ({a}, {b}){more}; "
        "each spot needs a position of its own."
    )


class TargetTrunk(nn.Module):
    """A timm model without pooling and classifier: patches (B, 3, P, P) -> (B, T, channels).

    ResNet-18 on 224 px gives 49 tokens of 512 channels. Class and register tokens of a vision
    transformer are omitted. Weights are random until they are loaded from a checkpoint, or by
    `load_pretrained` before a training.

    Raises CheckpointError if timm does not know the name.
    """

    net: Any

    def __init__(self, name: str) -> None:
        super().__init__()
        import timm

        if not timm.is_model(name.split(".")[0]):
            raise CheckpointError(f"timm has no architecture named {name}; update timm or rename.")
        options = {"pretrained": False, "num_classes": 0, "global_pool": ""}
        try:  # without dynamic_img_size, transformers accept a single input size
            self.net = timm.create_model(name, dynamic_img_size=True, **options)
        except TypeError:
            self.net = timm.create_model(name, **options)
        self.name = name
        self.channels: int = self.net.num_features

    def load_pretrained(self, weights: Path | None = None) -> None:
        """Load published weights, or those of a local file, before a training.

        Raises EncoderError saying what to do if they are not available.
        """
        from ..encoders.timm_builder import (
            create_network,
            find_published_weights,
            resolve_timm_model,
        )

        model_spec = resolve_timm_model(self.name)
        file = weights or find_published_weights(model_spec)
        self.net.load_state_dict(create_network(model_spec, file, global_pool="").state_dict())

    def forward(self, patches: Tensor) -> Tensor:
        maps: Tensor = self.net.forward_features(patches)
        if maps.ndim == 3:
            return maps[:, getattr(self.net, "num_prefix_tokens", 0) :]
        if maps.shape[1] == self.channels:
            maps = maps.permute(0, 2, 3, 1)
        return maps.flatten(1, 2)


def find_trunk(network: nn.Module) -> TargetTrunk | None:
    """Return the trunk of a network of any method, None where it has none."""
    trunk = getattr(network, "trunk", None)
    return trunk if isinstance(trunk, TargetTrunk) else None


class GlobalEncoder(nn.Module):
    """All spots of a slide attend to each other: one layer, position encoding, the rest."""

    def __init__(self, config: MultiScaleConfig) -> None:
        super().__init__()
        dim, stack = config.dim, config.global_
        self.layers = Transformer(dim, int(dim * stack.ratio), stack)
        self.position = PositionEncoding(dim, config.kernel)
        self.norm = nn.LayerNorm(dim)

    def forward(
        self, features: Tensor, positions: Tensor, query_rows: Tensor | None = None
    ) -> Tensor:
        """Encode all spots (M, d), or only query_rows, for which the last layer is cheaper."""
        x = features[None]
        blocks = list(zip(self.layers.attention, self.layers.feed, strict=True))
        for i, (attention, feed) in enumerate(blocks):
            last = i == len(blocks) - 1 and i > 0
            x = feed(attention(x, query_rows=query_rows if last else None))
            if i == 0:
                x = self.position(x[0], positions)[None]
        if query_rows is not None and len(blocks) < 2:
            x = x[:, query_rows]
        tokens: Tensor = self.norm(x[0])
        return tokens


class ExpressionEncoder(nn.Module):
    """Encode expression (B, G) to one token (B, d) for the expression path; training only."""

    def __init__(self, genes: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.project = nn.Linear(genes, dim)
        self.refine = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(dim)

    def forward(self, expression: Tensor) -> Tensor:
        p = self.project(expression)
        token: Tensor = self.norm(self.dropout(self.refine(F.gelu(p))) + p)
        return token
