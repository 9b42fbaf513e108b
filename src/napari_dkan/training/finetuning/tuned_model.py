"""A copy of a network that is fine-tuned on selected spots, and its recalibration of mean and std."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ...model.network.dkan_network import DKAN
from ...model.network.network_interface import FusedTokens
from ..data.prepared_section import EncodedSection
from ..data.section_batches import normalize_patches
from ..fit.losses import correlation_loss, supervised_loss
from .finetune_settings import AdaptScope
from .hold_out_split import Subset
from .training_section import LabelMatrix, TrainingSection

PRIOR_SPOTS = 30  # spots that the old level counts for
SLOPE_LIMITS = (0.3, 3.0)  # at least and at most times the old


def recalibrate_mean_std(
    network: DKAN, predicted: Sequence[LabelMatrix], measured: Sequence[LabelMatrix]
) -> None:
    """Set label_mean and label_std by what a network predicted (n, G) and what was measured there.

    A gene's level moves by the mean error over the spots, as if `PRIOR` more spots had none; the
    spread of all genes changes by one factor, the slope of measured on predicted. Genes that are
    measured nowhere (NaN) stay.
    """
    p, y = (np.concatenate(v).astype(np.float64) for v in (predicted, measured))
    known = ~np.isnan(y)
    count = known.sum(axis=0)
    error = np.where(known, y - p, 0).sum(axis=0) / (count + PRIOR_SPOTS)
    shown = np.where(known, p, 0).sum(axis=0) / np.maximum(count, 1)
    centre = np.where(known, y, 0).sum(axis=0) / np.maximum(count, 1)
    apart = np.where(known, p - shown, 0)
    both = (apart * np.where(known, y - centre, 0)).sum()
    slope = float(np.clip(both / max((apart**2).sum(), 1e-9), *SLOPE_LIMITS))
    factor = torch.from_numpy(np.where(count > 0, slope, 1.0)).float()
    middle, moved = (torch.from_numpy(v).float() for v in (shown, error))
    network.label_mean.copy_(factor * network.label_mean + (1 - factor) * middle + moved)
    network.label_std.mul_(factor)


def initialize_mean_std(
    network: DKAN, genes: slice, predicted: Sequence[LabelMatrix], measured: Sequence[LabelMatrix]
) -> None:
    """Level and spread of genes that have none yet: those of the measured (n, G) labels."""
    p, y = (np.concatenate(v)[:, genes].astype(np.float64) for v in (predicted, measured))
    shown = (torch.from_numpy(p).float() - network.label_mean[genes]) / network.label_std[genes]
    spread = torch.from_numpy(y.std(axis=0)).float().clamp_min(0.02)
    network.label_std[genes] = spread
    network.label_mean[genes] = torch.from_numpy(y.mean(axis=0)).float() - spread * shown.mean(0)


BATCH_SIZE = 64
GENES_PER_STEP = 64  # of a step, drawn at random
CORRELATION_WEIGHT = 0.5  # as in training
_FUSED_FIELDS = ("z", "target_mean", "neighbor_mean")
LEARNING_RATES = {AdaptScope.heads: 2e-3, AdaptScope.decoder: 1e-3, AdaptScope.everything: 5e-4}


@dataclass(frozen=True)
class SpotTokens:
    """What a network makes of N spots before any gene comes in; context : (N, d) slide tokens."""

    fused: FusedTokens
    context: Tensor

    def select_rows(self, rows: Tensor) -> SpotTokens:
        f = self.fused
        return SpotTokens(
            FusedTokens(f.z[rows], f.target_mean[rows], f.neighbor_mean[rows]), self.context[rows]
        )


@torch.no_grad()
def compute_spot_tokens(network: DKAN, lessons: Sequence[TrainingSection]) -> list[SpotTokens]:
    """Of all spots of each, a few at a time."""
    return [
        _concatenate_tokens([_compute_tokens(network, le.encoded, r) for r in _chunk_rows(len(le))])
        for le in lessons
    ]


def _chunk_rows(spots: int) -> Iterator[Tensor]:
    yield from torch.arange(spots).split(4 * BATCH_SIZE)


def _concatenate_tokens(parts: Sequence[SpotTokens]) -> SpotTokens:
    z, target, near = (torch.cat([getattr(v.fused, n) for v in parts]) for n in _FUSED_FIELDS)
    return SpotTokens(FusedTokens(z, target, near), torch.cat([v.context for v in parts]))


def _compute_tokens(network: DKAN, encoded: EncodedSection, rows: Tensor) -> SpotTokens:
    """Some spots of a section in the light of all."""
    section, near = (
        encoded.section,
        network.standardize_by_slide(encoded.neighbor_features, encoded.target_features),
    )
    context = network.encode_global(encoded.target_features, section.positions)[rows]
    patches = normalize_patches(section.patches[rows])
    return SpotTokens(network.fuse(patches, near[rows], section.mask[rows], context), context)


class TunedModel:
    """A copy of a network that learns from `part` of the lessons.

    What only depends on weights that stay as they are is computed once. Genes that a section does
    not measure are held to what they were predicted to be.
    """

    def __init__(
        self,
        network: DKAN,
        tokens: Sequence[SpotTokens],
        sections: Sequence[TrainingSection],
        subset: Subset,
        adapt: AdaptScope,
        lr: float | None,
        seed: int,
    ) -> None:
        self.network = copy.deepcopy(network).eval()
        self._encoded = [le.encoded for le in sections]
        self._tokens, self._subset = tokens, subset
        self._recomputes_tokens = adapt is AdaptScope.everything
        self._generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self._original_predictions = [
                network.decode(v.select_rows(r).fused.z) for v, r in self._iterate_with_rows(tokens)
            ]
        self._set_trainable(_select_trainable_modules(self.network, adapt))
        self._optimiser = torch.optim.Adam(
            [p for p in self.network.parameters() if p.requires_grad],
            lr=lr or LEARNING_RATES[adapt],
        )

    def recalibrate_mean_std(self) -> None:
        """Set level and spread to those of the spots it learns from; see `levels`."""
        recalibrate_mean_std(
            self.network, [k.numpy() for k in self._original_predictions], self._subset.labels
        )

    def train_epoch(self, should_stop: Callable[[], bool] = lambda: False) -> float:
        """Once through the spots; the mean loss, which may be infinite or NaN.

        enough : asked after every step; when it is, the rest of the spots is left out.
        """
        total, count = 0.0, 0
        for lesson, at in self._iterate_batches():
            loss = self._compute_loss(lesson, at)
            self._optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            self._optimiser.step()
            total, count = total + float(loss.detach()) * len(at), count + len(at)
            if should_stop():
                break
        return total / count

    @torch.no_grad()
    def predict(self, section_index: int, rows: np.ndarray) -> LabelMatrix:
        """(len(rows), G) on the label scale."""
        seen = _concatenate_tokens(
            [
                self._select_tokens(section_index, torch.from_numpy(rows)[r])
                for r in _chunk_rows(len(rows))
            ]
        )
        return self.network.decode(seen.fused.z).numpy()

    def copy_state(self) -> dict[str, Tensor]:
        """A copy of the weights of now."""
        return {n: t.detach().clone() for n, t in self.network.state_dict().items()}

    def _select_tokens(self, lesson: int, rows: Tensor) -> SpotTokens:
        if self._recomputes_tokens:
            return _compute_tokens(self.network, self._encoded[lesson], rows)
        return self._tokens[lesson].select_rows(rows)

    def _iterate_batches(self) -> Iterator[tuple[int, Tensor]]:
        """Lesson and places in its rows."""
        plan = []
        for lesson, rows in enumerate(self._subset.rows):
            if len(rows):
                order = torch.randperm(len(rows), generator=self._generator)
                parts = max(1, round(len(rows) / BATCH_SIZE))
                plan += [(lesson, places) for places in order.chunk(parts)]
        for i in torch.randperm(len(plan), generator=self._generator).tolist():
            yield plan[i]

    def _compute_loss(self, lesson: int, at: Tensor) -> Tensor:
        net = self.network
        labels = torch.from_numpy(self._subset.labels[lesson])[at]
        missing = labels.isnan()
        wanted = net.from_label_scale(
            torch.where(missing, self._original_predictions[lesson][at], labels)
        )
        genes = torch.randperm(net.config.genes, generator=self._generator)[:GENES_PER_STEP]
        now = self._select_tokens(lesson, torch.from_numpy(self._subset.rows[lesson])[at])
        final = net.head(net.image(net.encode_genes()[None, genes], now.fused.z)).squeeze(-1)
        auxiliary = tuple(head[:, genes] for head in _compute_auxiliary(net, now))
        wanted = wanted[:, genes]
        loss = supervised_loss(final, auxiliary, wanted)
        return loss + CORRELATION_WEIGHT * sum(
            correlation_loss(h, wanted) for h in (final, *auxiliary)
        )

    def _iterate_with_rows(self, values: Sequence) -> Iterator[tuple]:  # type: ignore[type-arg]
        """Each lesson's value beside the rows that are learnt from."""
        for value, rows in zip(values, self._subset.rows, strict=True):
            yield value, torch.from_numpy(rows)

    def _set_trainable(self, modules: Sequence[nn.Module]) -> None:
        self.network.requires_grad_(False)
        for module in modules:
            module.requires_grad_(True)


def _select_trainable_modules(net: DKAN, adapt: AdaptScope) -> list[nn.Module]:
    heads = [net.head, net.head_fused, net.head_target, net.head_neighbor, net.head_global]
    if adapt is AdaptScope.heads:
        return heads
    if adapt is AdaptScope.decoder:
        return [*heads, net.image, net.text_fit]
    return [net]


def _compute_auxiliary(net: DKAN, seen: SpotTokens) -> tuple[Tensor, ...]:
    return (
        net.head_fused(seen.fused.z),
        net.head_target(seen.fused.target_mean),
        net.head_neighbor(seen.fused.neighbor_mean),
        net.head_global(seen.context),
    )
