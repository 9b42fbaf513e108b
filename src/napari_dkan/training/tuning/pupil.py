"""One network that learns from some spots of some sections."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ...model.network import DKAN
from ...model.results import Fused
from ..batches import normalised
from ..losses import correlation_loss, supervised
from ..sections import Encoded
from .lesson import Labels, Lesson
from .levels import adapt_levels
from .settings import Adapt
from .split import Part

BATCH = 64
GENES = 64  # of a step, drawn at random
CORRELATION = 0.5  # as in training
_FUSED = ("z", "target_mean", "neighbor_mean")
RATES = {Adapt.heads: 2e-3, Adapt.decoder: 1e-3, Adapt.everything: 5e-4}


@dataclass(frozen=True)
class View:
    """What a network makes of N spots before any gene comes in; context : (N, d) slide tokens."""

    fused: Fused
    context: Tensor

    def rows(self, rows: Tensor) -> View:
        f = self.fused
        return View(
            Fused(f.z[rows], f.target_mean[rows], f.neighbor_mean[rows]), self.context[rows]
        )


@torch.no_grad()
def views_of(network: DKAN, lessons: Sequence[Lesson]) -> list[View]:
    """Of all spots of each, a few at a time."""
    return [_joined([_view(network, le.encoded, r) for r in _few(len(le))]) for le in lessons]


def _few(spots: int) -> Iterator[Tensor]:
    yield from torch.arange(spots).split(4 * BATCH)


def _joined(parts: Sequence[View]) -> View:
    z, target, near = (torch.cat([getattr(v.fused, n) for v in parts]) for n in _FUSED)
    return View(Fused(z, target, near), torch.cat([v.context for v in parts]))


def _view(network: DKAN, encoded: Encoded, rows: Tensor) -> View:
    """Some spots of a section in the light of all."""
    section, near = encoded.section, network.on_slide(encoded.features, encoded.own)
    context = network.global_tokens(encoded.own, section.positions)[rows]
    patches = normalised(section.patches[rows])
    return View(network.fuse(patches, near[rows], section.mask[rows], context), context)


class Pupil:
    """A copy of a network that learns from `part` of the lessons.

    What only depends on weights that stay as they are is computed once. Genes that a section does
    not measure are held to what they were predicted to be.
    """

    def __init__(
        self,
        network: DKAN,
        views: Sequence[View],
        lessons: Sequence[Lesson],
        part: Part,
        adapt: Adapt,
        lr: float | None,
        seed: int,
    ) -> None:
        self.network = copy.deepcopy(network).eval()
        self._encoded = [le.encoded for le in lessons]
        self._views, self._part = views, part
        self._fresh = adapt is Adapt.everything
        self._draw = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self._kept = [network.decode(v.rows(r).fused.z) for v, r in self._pairs(views)]
        self._learn(_modules(self.network, adapt))
        self._optimiser = torch.optim.Adam(
            [p for p in self.network.parameters() if p.requires_grad], lr=lr or RATES[adapt]
        )

    def adapt_levels(self) -> None:
        """Set level and spread to those of the spots it learns from; see `levels`."""
        adapt_levels(self.network, [k.numpy() for k in self._kept], self._part.labels)

    def epoch(self, enough: Callable[[], bool] = lambda: False) -> float:
        """Once through the spots; the mean loss, which may be infinite or NaN.

        enough : asked after every step; when it is, the rest of the spots is left out.
        """
        total, count = 0.0, 0
        for lesson, at in self._batches():
            loss = self._loss(lesson, at)
            self._optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            self._optimiser.step()
            total, count = total + float(loss.detach()) * len(at), count + len(at)
            if enough():
                break
        return total / count

    @torch.no_grad()
    def predict(self, lesson: int, rows: np.ndarray) -> Labels:
        """(len(rows), G) on the label scale."""
        seen = _joined([self._view(lesson, torch.from_numpy(rows)[r]) for r in _few(len(rows))])
        return self.network.decode(seen.fused.z).numpy()

    def state(self) -> dict[str, Tensor]:
        """A copy of the weights of now."""
        return {n: t.detach().clone() for n, t in self.network.state_dict().items()}

    def _view(self, lesson: int, rows: Tensor) -> View:
        if self._fresh:
            return _view(self.network, self._encoded[lesson], rows)
        return self._views[lesson].rows(rows)

    def _batches(self) -> Iterator[tuple[int, Tensor]]:
        """Lesson and places in its rows."""
        plan = []
        for lesson, rows in enumerate(self._part.rows):
            if len(rows):
                order = torch.randperm(len(rows), generator=self._draw)
                parts = max(1, round(len(rows) / BATCH))
                plan += [(lesson, places) for places in order.chunk(parts)]
        for i in torch.randperm(len(plan), generator=self._draw).tolist():
            yield plan[i]

    def _loss(self, lesson: int, at: Tensor) -> Tensor:
        net = self.network
        labels = torch.from_numpy(self._part.labels[lesson])[at]
        missing = labels.isnan()
        wanted = net.from_label_scale(torch.where(missing, self._kept[lesson][at], labels))
        genes = torch.randperm(net.config.genes, generator=self._draw)[:GENES]
        now = self._view(lesson, torch.from_numpy(self._part.rows[lesson])[at])
        final = net.head(net.image(net.gene_tokens()[None, genes], now.fused.z)).squeeze(-1)
        auxiliary = tuple(head[:, genes] for head in _auxiliary(net, now))
        wanted = wanted[:, genes]
        loss = supervised(final, auxiliary, wanted)
        return loss + CORRELATION * sum(correlation_loss(h, wanted) for h in (final, *auxiliary))

    def _pairs(self, values: Sequence) -> Iterator[tuple]:  # type: ignore[type-arg]
        """Each lesson's value beside the rows that are learnt from."""
        for value, rows in zip(values, self._part.rows, strict=True):
            yield value, torch.from_numpy(rows)

    def _learn(self, modules: Sequence[nn.Module]) -> None:
        self.network.requires_grad_(False)
        for module in modules:
            module.requires_grad_(True)


def _modules(net: DKAN, adapt: Adapt) -> list[nn.Module]:
    heads = [net.head, net.head_fused, net.head_target, net.head_neighbor, net.head_global]
    if adapt is Adapt.heads:
        return heads
    if adapt is Adapt.decoder:
        return [*heads, net.image, net.text_fit]
    return [net]


def _auxiliary(net: DKAN, seen: View) -> tuple[Tensor, ...]:
    return (
        net.head_fused(seen.fused.z),
        net.head_target(seen.fused.target_mean),
        net.head_neighbor(seen.fused.neighbor_mean),
        net.head_global(seen.context),
    )
