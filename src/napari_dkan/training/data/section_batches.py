"""Training batches of one section each, and the fused tokens of a section's spots.

The global branch needs all spots of a section together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from ...model.encoders.encoder_spec import IMAGENET_MEAN, IMAGENET_STD
from ...model.network.network_interface import ExpressionNetwork, FusedTokens
from .prepared_section import EncodedSection


class TrainingBatch(TypedDict):
    """B spots of a section of M; patches (B, 3, P, P) are normalized, labels (B, G) are not."""

    patches: Tensor
    slide_features: Tensor
    positions: Tensor
    neighbor_features: Tensor
    neighbor_mask: Tensor
    rows: Tensor
    labels: Tensor


class ValidationBatch(TrainingBatch):
    """A whole section of M spots with the depth (M,) of each, 0 where the counts are unknown."""

    depth: Tensor


def normalize_patches(patches: Tensor) -> Tensor:
    """Convert uint8 RGB (B, 3, P, P) to float, with ImageNet's mean and standard deviation."""
    mean = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD).view(3, 1, 1)
    return (patches.float() / 255 - mean) / std


def make_section_batch(encoded: EncodedSection) -> TrainingBatch:
    """Make one batch of a whole section."""
    return _make_batch(encoded, torch.arange(len(encoded.section)), encoded.section.patches)


def make_validation_batch(encoded: EncodedSection) -> ValidationBatch:
    """Make one batch of a whole section with the depth of its spots.

    At a constant depth, as where the counts are unknown, depth-partial PCC is PCC-ALL.
    """
    counts, n_spots = encoded.section.counts, len(encoded.section)
    depth = torch.zeros(n_spots) if counts is None else torch.from_numpy(counts.depth)
    return {**make_section_batch(encoded), "depth": depth}


def predict_batch(network: ExpressionNetwork, batch: TrainingBatch) -> Tensor:
    """Predict a whole section: (M, G) on the label scale."""
    return network.predict(
        batch["patches"],
        batch["slide_features"],
        batch["positions"],
        batch["neighbor_features"],
        batch["neighbor_mask"],
    )["final"]


@dataclass(frozen=True)
class SpotTokens:
    """Tokens of N spots before any gene token is involved; context is (N, d) of the slide."""

    fused: FusedTokens
    context: Tensor

    def select_rows(self, rows: Tensor) -> SpotTokens:
        """Select spots; the rows may be on another device."""
        f, rows = self.fused, rows.to(self.context.device)
        return SpotTokens(
            FusedTokens(f.z[rows], f.target_mean[rows], f.neighbor_mean[rows]), self.context[rows]
        )

    @classmethod
    def concatenate(cls, chunks: Sequence[SpotTokens]) -> SpotTokens:
        """Join the spots of several chunks."""
        fused = [chunk.fused for chunk in chunks]
        return cls(
            FusedTokens(
                torch.cat([f.z for f in fused]),
                torch.cat([f.target_mean for f in fused]),
                torch.cat([f.neighbor_mean for f in fused]),
            ),
            torch.cat([chunk.context for chunk in chunks]),
        )


def fuse_section(
    network: ExpressionNetwork, encoded: EncodedSection, row_chunks: Iterable[Tensor]
) -> Iterator[SpotTokens]:
    """Compute the tokens of each chunk of rows (on the CPU), in the context of the whole section.

    They are on the device of the network, the section is on the CPU.
    """
    section, device = encoded.section, network.device
    slide_features = encoded.target_features.to(device)
    context = network.encode_global(slide_features, section.positions.to(device))
    for rows in row_chunks:
        patches = normalize_patches(section.patches[rows]).to(device)
        neighbors = encoded.neighbor_features[rows].to(device)
        neighbors = network.standardize_by_slide(neighbors, slide_features)
        tokens = context[rows.to(device)]
        yield SpotTokens(
            network.fuse(patches, neighbors, section.mask[rows].to(device), tokens), tokens
        )


class SectionBatchDataset(IterableDataset[TrainingBatch]):
    """Shuffled batches, each of one view of its section.

    Each target patch is rotated and flipped at random; neighbours are not.

    A generator that is seeded once draws a new plan in every epoch. Where several processes train
    together, all of them draw the same plan and each takes an equal share of its batches; the
    first batches fill up the last share.
    """

    def __init__(self, sections: Sequence[EncodedSection], batch_size: int, seed: int) -> None:
        self.sections = list(sections)
        self.batch_size = batch_size
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return -(-sum(self._count_batches(s) for s in self.sections) // _rank_and_world_size()[1])

    def __iter__(self) -> Iterator[TrainingBatch]:
        plan = []
        for section in self.sections:
            spots = torch.randperm(len(section.section), generator=self.generator)
            # equal parts: a last batch of two spots would upset batch normalisation
            plan += [(section, rows) for rows in spots.chunk(self._count_batches(section))]
        order = torch.randperm(len(plan), generator=self.generator).tolist()
        rank, n_processes = _rank_and_world_size()
        order += order[: -len(order) % n_processes]
        for turn, i in enumerate(order):
            section, rows = plan[i]
            section = self._sample_view(section)
            symmetries = torch.randint(8, (len(rows),), generator=self.generator)
            if turn % n_processes == rank:
                yield _make_batch(
                    section, rows, _rotate_and_flip(section.section.patches[rows], symmetries)
                )

    def _sample_view(self, section: EncodedSection) -> EncodedSection:
        """Draw the section itself or one of its views, with equal probability."""
        views = (section, *section.views)
        return views[int(torch.randint(len(views), (1,), generator=self.generator))]

    def _count_batches(self, encoded: EncodedSection) -> int:
        return max(1, round(len(encoded.section) / self.batch_size))


def _rank_and_world_size() -> tuple[int, int]:
    """Return the number of this process, and how many train together."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _rotate_and_flip(patches: Tensor, symmetries: Tensor) -> Tensor:
    """Apply one of the eight symmetries of the square to each patch."""
    out = torch.empty_like(patches)
    for symmetry in range(8):
        is_chosen = symmetries == symmetry
        rotated = torch.rot90(patches[is_chosen], symmetry % 4, dims=(2, 3))
        out[is_chosen] = rotated.flip(3) if symmetry >= 4 else rotated
    return out


def _make_batch(encoded: EncodedSection, rows: Tensor, patches: Tensor) -> TrainingBatch:
    section = encoded.section
    return {
        "patches": normalize_patches(patches),
        "slide_features": encoded.target_features,
        "positions": section.positions,
        "neighbor_features": encoded.neighbor_features[rows],
        "neighbor_mask": section.mask[rows],
        "rows": rows,
        "labels": section.labels[rows],
    }
