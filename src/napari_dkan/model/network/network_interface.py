"""The base class of every network for prediction: one network of any method, or an ensemble."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ...errors import CheckpointError, SpotsError
from .network_config import NetworkConfig

NUM_PRIOR_SPOTS = 10


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


class ExpressionNetwork(nn.Module):
    """From tile features and pixels of a spot to a token, and from the token to expression.

    A method implements `fuse_tokens` and `decode`; what it sees of a slide beyond the tiles around
    a spot is in `encode_global`, what it sees of the pixels in `encode_target`. Gene text and
    auxiliary heads are optional.

    In eval mode every result is deterministic and independent of the order of the spots.

    Attributes
    ----------
    label_mean, label_std
        (G,), from the standardised outputs to the label scale.
    draws_samples
        Whether predictions are means of samples; then all genes are decoded at once.
    """

    config: NetworkConfig
    label_mean: Tensor
    label_std: Tensor
    draws_samples: ClassVar[bool] = False

    @property
    def has_spread(self) -> bool:
        """Whether `decode_with_spread` has a spread: the network samples, or has members."""
        return self.draws_samples or self.config.members > 1

    @property
    def spread_meaning(self) -> str:
        """What the spread is of, in words."""
        members = self.config.members
        if not self.draws_samples:
            return f"disagreement of {members} networks, less than the error of the prediction"
        between = f" of {members} networks and of their means" if members > 1 else ""
        return f"standard deviation of samples{between}"

    def _register_label_scale(self) -> None:
        self.register_buffer("label_mean", torch.zeros(self.config.genes))
        self.register_buffer("label_std", torch.ones(self.config.genes))

    @property
    def device(self) -> torch.device:
        return self.label_mean.device

    def validate_tensors(self) -> None:
        """Raise CheckpointError if values that were read from a file make no sense."""
        if (self.label_std <= 0).any():
            raise CheckpointError("its label_std has values that are not above zero")

    def standardize_by_slide(self, features: Tensor, slide_features: Tensor) -> Tensor:
        """Standardise features (..., d) by those of the slide's spots (M, d), as `fuse` takes them.

        Another stain or scanner shifts all features of a slide together; the differences within
        the slide remain. Features are unchanged if `config.standardise` is false.
        """
        if not self.config.standardise:
            return features
        return _standardize_with_prior(features, slide_features)

    def encode_global(
        self, slide_features: Tensor, positions: Tensor, query_rows: Tensor | None = None
    ) -> Tensor:
        """Encode every spot in the context of its slide.

        Parameters
        ----------
        slide_features
            (M, d).
        positions
            Whole array coordinates (M, 2).
        query_rows
            Rows that are returned, which is cheaper; None for all.

        Returns
        -------
        Tensor
            Global tokens (M, d), or (len(query_rows), d). Zeros for a method that sees no context.

        Raises
        ------
        SpotsError
            If two spots share a position, or the shapes do not fit.
        """
        n = len(slide_features) if query_rows is None else len(query_rows)
        return slide_features.new_zeros(n, self.config.dim)

    def encode_target(self, patches: Tensor) -> Tensor:
        """Encode patches (B, 3, P, P), normalised by ImageNet mean and std -> (B, T, d).

        Without a trunk there are no tokens (T = 0), and `fuse_tokens` makes one of the neighbour
        features.
        """
        require_shape("patches", patches, (patches.shape[0], 3, *patches.shape[-2:]))
        return patches.new_zeros(len(patches), 0, self.config.dim)

    def fuse(
        self,
        patches: Tensor,
        neighbor_features: Tensor,
        neighbor_mask: Tensor,
        global_tokens: Tensor,
    ) -> FusedTokens:
        """Fuse the three scales of B spots: `fuse_tokens` of the encoded patches."""
        target = self.encode_target(patches)
        return self.fuse_tokens(target, neighbor_features, neighbor_mask, global_tokens)

    def fuse_tokens(
        self,
        target: Tensor,
        neighbor_features: Tensor,
        neighbor_mask: Tensor,
        global_tokens: Tensor,
    ) -> FusedTokens:
        """Fuse the three scales of B spots.

        Parameters
        ----------
        target
            Tokens of the spots' patches (B, T, d).
        neighbor_features
            (B, K, d), row-major around the spot, from `standardize_by_slide`.
        neighbor_mask
            (B, K), 0 outside the slide.
        global_tokens
            (B, d).

        Raises
        ------
        SpotsError
            If the shapes do not fit.
        """
        raise NotImplementedError

    def own_tile_features(self, neighbor_features: Tensor) -> Tensor:
        """Return the features (B, d) of the middle of the neighbours (B, K, d).

        Raises SpotsError if the shape does not fit.
        """
        k = self.config.grid**2
        shape = (len(neighbor_features), k, self.config.feature_dim)
        require_shape("neighbour features", neighbor_features, shape)
        return neighbor_features[:, k // 2]

    def decode(
        self, z: Tensor, genes: Tensor | None = None, gene_tokens: Tensor | None = None
    ) -> Tensor:
        """Predict expression from z (B, d), on the label scale.

        A gene's value does not depend on the other genes. Genes and spots are processed in
        chunks, so memory is bounded (unless gradients are recorded).

        Parameters
        ----------
        genes
            Indices into the panel; None for all.
        gene_tokens
            Result of `encode_genes`, which is recomputed where gradients are recorded.

        Returns
        -------
        Tensor
            (B, G), or (B, len(genes)).
        """
        raise NotImplementedError

    def decode_with_spread(
        self, z: Tensor, genes: Tensor | None = None, gene_tokens: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Predict expression as `decode` does, with its spread: a standard deviation.

        Of a network that samples, that of the samples. Of an ensemble, the members' variances and
        the variance of their predictions are added. None for a single network that predicts one
        value.

        Returns
        -------
        values, spread
            Each (B, G), or (B, len(genes)), on the label scale.
        """
        return self.decode(z, genes, gene_tokens), None

    def encode_genes(self) -> Tensor:
        """Return tokens (G, d) of the panel's genes; zeros for a method without gene text."""
        return self.label_mean.new_zeros(self.config.genes, self.config.dim)

    def encode_new_genes(self, features: Tensor) -> Tensor:
        """Encode text features (K, d_t) of genes outside the panel to tokens (K, d).

        Raises CheckpointError for a method without gene text, SpotsError if the features have
        another width.
        """
        raise CheckpointError(
            f"The method of this checkpoint, {self.config.method}, has no gene text, so it "
            "predicts the genes of its panel only; choose a DKAN checkpoint for others."
        )

    def decode_gene_tokens(self, z: Tensor, tokens: Tensor) -> Tensor:
        """Predict standardised expression (B, K) from z (B, d) and gene tokens (K, d)."""
        raise CheckpointError(
            f"The method of this checkpoint, {self.config.method}, predicts the genes of its panel "
            "only."
        )

    def predict_auxiliary(self, fused: FusedTokens, global_tokens: Tensor) -> dict[str, Tensor]:
        """Predict with the auxiliary heads: (B, G) on the label scale, by head name.

        A method without such heads has its prediction as the only one.
        """
        return {"fused": self.decode(fused.z)}

    def to_label_scale(self, standardised: Tensor) -> Tensor:
        """Scale outputs of the heads (B, G) to labels: times label_std plus label_mean."""
        return standardised * self.label_std + self.label_mean

    def from_label_scale(self, labels: Tensor) -> Tensor:
        """Standardise labels (B, G), as the heads predict them."""
        return (labels - self.label_mean) / self.label_std

    def decode_linear(self, head: nn.Linear, z: Tensor, genes: Tensor | None) -> Tensor:
        """Predict with a linear head on z (B, d): (B, G) or (B, len(genes)) on the label scale."""
        if genes is None:
            return self.to_label_scale(head(z).float())
        rows = genes.to(self.device)
        out = nn.functional.linear(z, head.weight[rows], head.bias[rows]).float()
        return out * self.label_std[rows] + self.label_mean[rows]

    @torch.no_grad()
    def predict(
        self,
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
            Tensors (N, G) on the label scale: final, and those of `predict_auxiliary`; of DKAN
            fused, target, neighbor and global.

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
            parts: dict[str, list[Tensor]] = {}
            # an empty slide has one empty slice, so that every output is there
            for s in iter_slices(max(1, len(tokens)), batch_size):
                context = tokens[s]
                patch, neighbors, mask = (t[s].to(device) for t in inputs.values())
                neighbors = self.standardize_by_slide(neighbors, slide_features)
                fused = self.fuse(patch, neighbors, mask, context)
                outputs = {"final": self.decode(fused.z)}
                for name, value in (outputs | self.predict_auxiliary(fused, context)).items():
                    parts.setdefault(name, []).append(value)
        finally:
            self.train(mode)
        return {name: torch.cat(p) for name, p in parts.items()}


def _standardize_with_prior(features: Tensor, slide_features: Tensor) -> Tensor:
    """Standardise with a prior of ten pseudo-spots of mean 0 and standard deviation 1.

    That is about the distribution of a tile encoder's features over the training slides. Without
    it a slide of a single spot has no spread.
    """
    count = len(slide_features) + NUM_PRIOR_SPOTS
    mean = slide_features.sum(dim=0) / count
    squares = (slide_features - mean).square().sum(dim=0) / count
    variance = squares + (1 - len(slide_features) / count)
    return (features - mean) / variance.sqrt()


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
