"""BLEEP and mclSTExp: prediction by retrieval of training spots in a common space.

Images and expression are encoded into one space, in which the pairs of training spots are close.
A tile is predicted as the mean of the measured expression of the training spots whose expression
lies nearest to its image. These spots are the bank, which is stored with the network.

BLEEP: Xie et al., NeurIPS 2023 (arXiv 2306.01859). mclSTExp: Min et al., Briefings in
Bioinformatics 25, bbae551, 2024.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import CheckpointError
from ..network.attention_blocks import Transformer
from ..network.network_interface import ExpressionNetwork, FusedTokens, iter_slices
from .method_configs import BleepConfig, MclSTExpConfig, RetrievalConfig

MAX_SIMILARITIES = 4_000_000  # computed at once
MAX_CONTEXT_SPOTS = 4096  # of a section that attend to each other


class ProjectionHead(nn.Module):
    """LayerNorm(Dropout(Linear(GELU(p))) + p), p = Linear(x): (..., in) -> (..., dim)."""

    def __init__(self, in_features: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.project = nn.Linear(in_features, dim)
        self.refine = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        p = self.project(x)
        out: Tensor = self.norm(self.dropout(self.refine(F.gelu(p))) + p)
        return out


class RetrievalNetwork(ExpressionNetwork):
    """The image side, the bank and the mean over the nearest spots; z is the image's embedding.

    Attributes
    ----------
    bank
        Standardised labels (N, G) of the training spots.
    bank_positions
        Their array coordinates (N, 2), from 0 in each section.
    bank_sections
        Number (N,) of the section of each; sections are contiguous.
    """

    config: RetrievalConfig
    bank: Tensor
    bank_positions: Tensor
    bank_sections: Tensor

    def _build(self, expression_width: int) -> None:
        config = self.config
        self._register_label_scale()
        self.register_buffer("bank", torch.zeros(config.bank, config.genes))
        self.register_buffer("bank_positions", torch.zeros(config.bank, 2, dtype=torch.int64))
        self.register_buffer("bank_sections", torch.zeros(config.bank, dtype=torch.int64))
        self.image = ProjectionHead(config.feature_dim, config.dim, config.dropout)
        self.expression = ProjectionHead(expression_width, config.dim, config.dropout)
        self._key_cache: tuple[tuple[tuple[int, int], ...], Tensor] | None = None

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

    def encode_expression(self, labels: Tensor, positions: Tensor) -> Tensor:
        """Embed standardised labels (N, G) of spots of one section, at positions (N, 2)."""
        raise NotImplementedError

    def weight_neighbors(self, similarity: Tensor) -> Tensor:
        """Return weights (B, k), of sum 1, from the cosines (B, k) of the nearest spots."""
        raise NotImplementedError

    def encode_bank(self) -> Tensor:
        """Return the unit embeddings (N, d) of the bank; in eval mode, where there is no dropout.

        They are computed once for a set of weights.
        """
        inputs = tuple(self.state_dict(keep_vars=True).values())
        key = tuple((t.data_ptr(), t._version) for t in inputs)
        if self._key_cache is None or self._key_cache[0] != key:
            with (
                torch.inference_mode(False),
                torch.no_grad(),
                torch.autocast(self.device.type, enabled=False),
            ):
                _, lengths = torch.unique_consecutive(self.bank_sections, return_counts=True)
                sections = torch.split(torch.arange(self.config.bank), lengths.tolist())
                keys = [
                    self.encode_expression(self.bank[rows], self.bank_positions[rows])
                    for section in sections
                    for rows in torch.split(section, MAX_CONTEXT_SPOTS)
                ]
                self._key_cache = (key, F.normalize(torch.cat(keys), dim=-1))
        return self._key_cache[1]

    def decode(
        self, z: Tensor, genes: Tensor | None = None, gene_tokens: Tensor | None = None
    ) -> Tensor:
        """See `ExpressionNetwork.decode`; gene tokens have no effect."""
        rows = torch.arange(self.config.genes) if genes is None else genes
        rows = rows.to(self.device)
        values = self.bank if genes is None else self.bank[:, rows]
        keys, out = self.encode_bank(), z.new_empty(len(z), len(rows), dtype=torch.float32)
        queries = F.normalize(z.detach().float(), dim=-1)
        k = min(self.config.top_k, len(keys))
        for s in iter_slices(len(z), max(1, MAX_SIMILARITIES // max(len(keys), k * len(rows)))):
            similarity, nearest = (queries[s] @ keys.T).topk(k, dim=1)
            out[s] = torch.einsum("bk,bkg->bg", self.weight_neighbors(similarity), values[nearest])
        return out * self.label_std[rows] + self.label_mean[rows]

    def fill_bank(self, labels: list[Tensor], positions: list[Tensor]) -> None:
        """Set the bank to the standardised labels (N, G) and positions (N, 2) of sections."""
        lengths = torch.tensor([len(values) for values in labels])
        self.bank.copy_(torch.cat(labels))
        self.bank_positions.copy_(torch.cat([p - p.amin(dim=0) for p in positions]))
        self.bank_sections.copy_(torch.repeat_interleave(torch.arange(len(labels)), lengths))

    def validate_tensors(self) -> None:
        """See `ExpressionNetwork.validate_tensors`; the sections of the bank are in order."""
        super().validate_tensors()
        if (self.bank_sections.diff() < 0).any() or (self.bank_positions < 0).any():
            raise CheckpointError("the sections or positions of its bank are not in order")


class Bleep(RetrievalNetwork):
    """BLEEP: an expression encoder of single spots, and the plain mean over the nearest."""

    config: BleepConfig

    def __init__(self, config: BleepConfig) -> None:
        super().__init__()
        self.config = config
        self._build(config.genes)

    def encode_expression(self, labels: Tensor, positions: Tensor) -> Tensor:
        """See `RetrievalNetwork.encode_expression`; each spot by itself."""
        embedded: Tensor = self.expression(labels)
        return embedded

    def weight_neighbors(self, similarity: Tensor) -> Tensor:
        """See `RetrievalNetwork.weight_neighbors`: all the same."""
        return torch.full_like(similarity, 1 / similarity.shape[1])


class MclSTExp(RetrievalNetwork):
    """mclSTExp: spots of a section attend to each other, with embeddings of their positions.

    The nearest spots are weighted by the inverse of their squared distance.
    """

    config: MclSTExpConfig

    def __init__(self, config: MclSTExpConfig) -> None:
        super().__init__()
        self.config = config
        d = config.dim
        self._build(d)
        self.embed = nn.Linear(config.genes, d)
        self.embed_x = nn.Embedding(config.positions, d)
        self.embed_y = nn.Embedding(config.positions, d)
        self.spots = Transformer(d, int(d * config.spot.ratio), config.spot)

    def encode_expression(self, labels: Tensor, positions: Tensor) -> Tensor:
        """See `RetrievalNetwork.encode_expression`; in the context of the other spots."""
        x, y = positions.unbind(dim=1)
        tokens = self.embed(labels) + self.embed_x(x) + self.embed_y(y)
        embedded: Tensor = self.expression(self.spots(tokens[None])[0])
        return embedded

    def weight_neighbors(self, similarity: Tensor) -> Tensor:
        """See `RetrievalNetwork.weight_neighbors`: by the squared distance of unit vectors."""
        closeness = 1 / (2 - 2 * similarity).clamp_min(1e-6)
        return closeness / closeness.sum(dim=1, keepdim=True)

    def validate_tensors(self) -> None:
        """See `ExpressionNetwork.validate_tensors`; every position has an embedding."""
        super().validate_tensors()
        if (self.bank_positions >= self.config.positions).any():
            raise CheckpointError("positions of its bank are beyond those it has embeddings of")
