"""A copy of a network that is fine-tuned on selected spots, and the levels of new genes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ...model.network.dkan_network import DKAN
from ...model.network.ensemble import get_linear_path
from ...model.network.network_interface import ExpressionNetwork, FusedTokens
from ..data.section_batches import SpotTokens, fuse_section
from ..fit.losses import correlation_loss, supervised_loss
from .closed_form import Levels
from .finetune_settings import AdaptScope
from .hold_out_split import Subset
from .training_section import LabelMatrix, SpotRows, TrainingSection

BATCH_SIZE = 64
GENES_PER_STEP = 64  # drawn at random
MIN_SHARE = 0.05  # of a network in a gene's prediction, below which it is not trained on the gene
CORRELATION_WEIGHT = 0.5  # as in training
LEARNING_RATES = {AdaptScope.heads: 2e-3, AdaptScope.decoder: 1e-3, AdaptScope.everything: 5e-4}


def initialize_mean_std(
    network: DKAN, genes: slice, predicted: Sequence[LabelMatrix], measured: Sequence[LabelMatrix]
) -> None:
    """Set mean and standard deviation of new genes to those of the measured (n, G) labels."""
    p, y = (np.concatenate(v)[:, genes].astype(np.float64) for v in (predicted, measured))
    device = network.device
    standardized = torch.from_numpy(p).float().to(device) - network.label_mean[genes]
    standardized = standardized / network.label_std[genes]
    std = torch.from_numpy(y.std(axis=0)).float().clamp_min(0.02).to(device)
    mean = torch.from_numpy(y.mean(axis=0)).float().to(device)
    network.label_std[genes] = std
    network.label_mean[genes] = mean - std * standardized.mean(0)


@torch.no_grad()
def compute_spot_tokens(
    network: ExpressionNetwork, sections: Sequence[TrainingSection]
) -> list[SpotTokens]:
    """Compute the tokens of all spots of each section, in chunks."""
    return [
        SpotTokens.concatenate(list(fuse_section(network, s.encoded, _chunk_rows(len(s)))))
        for s in sections
    ]


def split_tokens(tokens: SpotTokens, n_members: int) -> list[SpotTokens]:
    """Split the tokens of an ensemble by member, without the features of a linear path."""
    f, context = tokens.fused, tokens.context
    z = f.z[:, : context.shape[1]]
    parts = [t.chunk(n_members, dim=1) for t in (z, f.target_mean, f.neighbor_mean, context)]
    return [SpotTokens(FusedTokens(*fused), c) for *fused, c in zip(*parts, strict=True)]


@dataclass(frozen=True, eq=False)
class FixedPart:
    """What is not trained of predictions ``share * member + rest``: a linear path and new levels.

    Attributes
    ----------
    share
        Weight (G,) of a member's prediction.
    rest
        (N, G) of all spots of each section, on the label scale.
    """

    share: Tensor
    rest: tuple[Tensor, ...]

    @classmethod
    def of_network(cls, network: ExpressionNetwork, tokens: Sequence[SpotTokens]) -> FixedPart:
        """Take it from the linear path; without one the members predict everything."""
        path, n_genes = get_linear_path(network), network.config.genes
        zeros = [t.context.new_zeros(len(t.context), n_genes) for t in tokens]
        if path is None:
            return cls(torch.ones(n_genes, device=network.device), tuple(zeros))
        pairs = zip(zeros, tokens, strict=True)
        with torch.no_grad():
            return cls(path.share.detach(), tuple(path(zero, t.fused.z) for zero, t in pairs))

    def at_levels(self, levels: Levels) -> FixedPart:
        """Change predictions to slope * prediction + shift."""
        slope, shift = (torch.from_numpy(v).float().to(self.share.device) for v in levels)
        return FixedPart(slope * self.share, tuple(slope * r + shift for r in self.rest))

    @property
    def is_trainable(self) -> Tensor:
        """Which genes (G,) the members have a noticeable part in."""
        return self.share.abs() > MIN_SHARE


def _chunk_rows(n_spots: int) -> Sequence[Tensor]:
    return torch.split(torch.arange(n_spots), 4 * BATCH_SIZE)


class TunedModel:
    """A copy of a network that trains on a subset of the sections' spots.

    Tokens that depend on frozen weights only are computed once. The target is what a linear path
    and new levels leave to the network; of a gene that a section does not measure it is the
    original prediction.

    Parameters
    ----------
    tokens
        Tokens of the original network for all spots of each section.
    fixed
        What is added to its predictions, levels included.
    lr
        Learning rate; None for that of `adapt`.
    """

    def __init__(
        self,
        network: DKAN,
        tokens: Sequence[SpotTokens],
        sections: Sequence[TrainingSection],
        subset: Subset,
        fixed: FixedPart,
        adapt: AdaptScope,
        lr: float | None,
        seed: int,
    ) -> None:
        self.network = copy.deepcopy(network).eval()
        self._encoded = [s.encoded for s in sections]
        self._tokens, self._subset, self._fixed = tokens, subset, fixed
        self._recomputes_tokens = adapt is AdaptScope.everything
        self._generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self._original_predictions = [
                network.decode(t.select_rows(torch.from_numpy(rows)).fused.z)
                for t, rows in zip(tokens, subset.rows, strict=True)
            ]
        self.network.requires_grad_(False)
        for module in _select_trainable_modules(self.network, adapt):
            module.requires_grad_(True)
        self._optimizer = torch.optim.Adam(
            [p for p in self.network.parameters() if p.requires_grad],
            lr=lr or LEARNING_RATES[adapt],
        )

    def train_epoch(self, should_stop: Callable[[], bool] = lambda: False) -> float:
        """Train on every spot once, or until `should_stop` returns True after a step.

        Returns
        -------
        The mean loss, which may be infinite or NaN.
        """
        total, count = 0.0, 0
        for section_index, positions in self._iterate_batches():
            loss = self._compute_loss(section_index, positions)
            self._optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            self._optimizer.step()
            total += float(loss.detach()) * len(positions)
            count += len(positions)
            if should_stop():
                break
        return total / count

    @torch.no_grad()
    def predict(self, section_index: int, rows: SpotRows) -> LabelMatrix:
        """Predict spots of a section: (len(rows), G) on the label scale."""
        tokens = SpotTokens.concatenate(
            [
                self._select_tokens(section_index, torch.from_numpy(rows)[chunk])
                for chunk in _chunk_rows(len(rows))
            ]
        )
        rest = self._fixed.rest[section_index][torch.from_numpy(rows).to(self.network.device)]
        values = self._fixed.share * self.network.decode(tokens.fused.z) + rest
        return values.cpu().numpy()

    def copy_state(self) -> dict[str, Tensor]:
        """Copy the current weights."""
        return {n: t.detach().clone() for n, t in self.network.state_dict().items()}

    def _select_tokens(self, section_index: int, rows: Tensor) -> SpotTokens:
        if self._recomputes_tokens:
            return next(fuse_section(self.network, self._encoded[section_index], [rows]))
        return self._tokens[section_index].select_rows(rows)

    def _iterate_batches(self) -> Iterator[tuple[int, Tensor]]:
        """Yield the index of a section and positions in its rows of the subset."""
        plan = []
        for section_index, rows in enumerate(self._subset.rows):
            if len(rows):
                order = torch.randperm(len(rows), generator=self._generator)
                n_batches = max(1, round(len(rows) / BATCH_SIZE))
                plan += [(section_index, positions) for positions in order.chunk(n_batches)]
        for i in torch.randperm(len(plan), generator=self._generator).tolist():
            yield plan[i]

    def _compute_loss(self, section_index: int, positions: Tensor) -> Tensor:
        net, fixed = self.network, self._fixed
        rows = torch.from_numpy(self._subset.rows[section_index])[positions]
        labels = torch.from_numpy(self._subset.labels[section_index])[positions].to(net.device)
        left = (labels - fixed.rest[section_index][rows.to(net.device)]) / fixed.share
        original = self._original_predictions[section_index][positions.to(net.device)]
        is_target = fixed.is_trainable & ~labels.isnan()
        target = net.from_label_scale(torch.where(is_target, left, original))
        genes = torch.randperm(net.config.genes, generator=self._generator)[:GENES_PER_STEP]
        genes = genes.to(net.device)
        tokens = self._select_tokens(section_index, rows)
        final = net.head(net.image(net.encode_genes()[None, genes], tokens.fused.z)).squeeze(-1)
        heads = net.apply_auxiliary_heads(tokens.fused, tokens.context)
        auxiliary = tuple(head[:, genes] for head in heads)
        target = target[:, genes]
        loss = supervised_loss(final, auxiliary, target)
        return loss + CORRELATION_WEIGHT * sum(
            correlation_loss(h, target) for h in (final, *auxiliary)
        )


def _select_trainable_modules(net: DKAN, adapt: AdaptScope) -> list[nn.Module]:
    heads: list[nn.Module] = [
        *(net.head, net.head_fused, net.head_target, net.head_neighbor, net.head_global)
    ]
    if adapt is AdaptScope.heads:
        return heads
    if adapt is AdaptScope.decoder:
        return [*heads, net.image, net.text_fit]
    return [net]
