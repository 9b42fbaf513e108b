"""Interface of a network for prediction, which a single network and an ensemble implement."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ...errors import SpotsError
from .dkan_config import DKANConfig

OUTPUT_NAMES = ("final", "fused", "target", "neighbor", "global")


@dataclass(frozen=True)
class FusedTokens:
    """Image features of B spots: z (B, d), and the mean target and neighbour tokens (B, d).

    z is what is kept of a spot. In it the features of a linear path, if any, follow the network's.
    """

    z: Tensor
    target_mean: Tensor
    neighbor_mean: Tensor


@dataclass(frozen=True)
class ForwardOutputs:
    """Outputs of a training pass.

    Attributes
    ----------
    final, fused, target, neighbor, global_
        Standardised predictions (B, G), see `DKAN.to_label_scale`.
    image_tokens, expression_tokens
        F_img and F_exp, (B, G, d), for the contrastive loss; the latter is None without expression.
    """

    final: Tensor
    fused: Tensor
    target: Tensor
    neighbor: Tensor
    global_: Tensor
    image_tokens: Tensor
    expression_tokens: Tensor | None

    @property
    def auxiliary(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.fused, self.target, self.neighbor, self.global_


class ExpressionNetwork(Protocol):
    """A network for prediction, `DKAN` or `Ensemble`; the methods are documented at `DKAN`."""

    config: DKANConfig
    training: bool

    @property
    def device(self) -> torch.device: ...

    @property
    def label_mean(self) -> Tensor: ...

    @property
    def label_std(self) -> Tensor: ...

    def standardize_by_slide(self, features: Tensor, slide_features: Tensor) -> Tensor: ...

    def encode_global(
        self, slide_features: Tensor, positions: Tensor, query_rows: Tensor | None = None
    ) -> Tensor: ...

    def encode_target(self, patches: Tensor) -> Tensor: ...

    def fuse(
        self,
        patches: Tensor,
        neighbor_features: Tensor,
        neighbor_mask: Tensor,
        global_tokens: Tensor,
    ) -> FusedTokens: ...

    def fuse_tokens(
        self,
        target: Tensor,
        neighbor_features: Tensor,
        neighbor_mask: Tensor,
        global_tokens: Tensor,
    ) -> FusedTokens: ...

    def encode_genes(self) -> Tensor: ...

    def encode_new_genes(self, features: Tensor) -> Tensor: ...

    def decode(
        self, z: Tensor, genes: Tensor | None = None, gene_tokens: Tensor | None = None
    ) -> Tensor: ...

    def decode_gene_tokens(self, z: Tensor, tokens: Tensor) -> Tensor: ...

    def predict_auxiliary(self, fused: FusedTokens, global_tokens: Tensor) -> dict[str, Tensor]: ...

    def eval(self) -> Any: ...

    def train(self, mode: bool = True) -> Any: ...


class SectionPrediction:
    """Methods that follow from the interface, inherited by `DKAN` and `Ensemble`."""

    def fuse(
        self: ExpressionNetwork,
        patches: Tensor,
        neighbor_features: Tensor,
        neighbor_mask: Tensor,
        global_tokens: Tensor,
    ) -> FusedTokens:
        """Fuse the three scales of B spots: `fuse_tokens` of the encoded patches."""
        target = self.encode_target(patches)
        return self.fuse_tokens(target, neighbor_features, neighbor_mask, global_tokens)

    def to_label_scale(self: ExpressionNetwork, standardised: Tensor) -> Tensor:
        """Scale outputs of the heads (B, G) to labels: times label_std plus label_mean."""
        return standardised * self.label_std + self.label_mean

    def from_label_scale(self: ExpressionNetwork, labels: Tensor) -> Tensor:
        """Standardise labels (B, G), as the heads predict them."""
        return (labels - self.label_mean) / self.label_std

    @torch.no_grad()
    def predict(
        self: ExpressionNetwork,
        patches: Tensor,
        slide_features: Tensor,
        positions: Tensor,
        neighbor_features: Tensor,
        neighbor_mask: Tensor,
        batch_size: int = 64,
    ) -> dict[str, Tensor]:
        """Predict all N spots of a slide, in eval mode whatever mode the network is in.

        Parameters
        ----------
        patches
            (N, 3, P, P).
        slide_features
            (N, d).
        positions
            (N, 2) integers.
        neighbor_features
            (N, K, d).
        neighbor_mask
            (N, K).

        Returns
        -------
        dict
            Five tensors (N, G) on the label scale: final, fused, target, neighbor and global.

        Raises
        ------
        SpotsError
            If the shapes do not fit or a position occurs twice.
        """
        mode, device = self.training, self.device
        self.eval()
        try:
            slide_features = slide_features.to(device)
            tokens = self.encode_global(slide_features, positions.to(device))
            inputs = {
                "patches": patches,
                "neighbour features": neighbor_features,
                "neighbour mask": neighbor_mask,
            }
            for label, tensor in inputs.items():
                require_shape(label, tensor, (len(tokens), *tensor.shape[1:]))
            parts: dict[str, list[Tensor]] = {name: [] for name in OUTPUT_NAMES}
            for s in iter_slices(len(tokens), batch_size):
                context = tokens[s]
                patch, neighbors, mask = (t[s].to(device) for t in inputs.values())
                neighbors = self.standardize_by_slide(neighbors, slide_features)
                fused = self.fuse(patch, neighbors, mask, context)
                parts["final"].append(self.decode(fused.z))
                for name, value in self.predict_auxiliary(fused, context).items():
                    parts[name].append(value)
        finally:
            self.train(mode)
        empty = torch.zeros(0, self.config.genes, device=device)
        return {name: torch.cat(p) if p else empty for name, p in parts.items()}


def iter_slices(length: int, size: int) -> Iterator[slice]:
    """Split a range into slices of at most `size`."""
    for start in range(0, length, max(1, size)):
        yield slice(start, min(start + size, length))


def require_shape(label: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    """Raise SpotsError unless a tensor has this shape."""
    if tuple(tensor.shape) != shape:
        raise SpotsError(
            f"The {label} have shape {tuple(tensor.shape)}; the network needs {shape}."
        )
