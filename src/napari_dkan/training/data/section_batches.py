"""Training batches of one section each. The global path needs all spots of a section together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypedDict

import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from ...model.encoders.encoder_spec import IMAGENET_MEAN, IMAGENET_STD
from ...model.network.dkan_network import DKAN
from ...model.network.ensemble import Ensemble
from .prepared_section import EncodedSection


class TrainingBatch(TypedDict):
    """B spots of a section of M; patches (B, 3, P, P) are normalised, labels (B, G) are not."""

    patches: Tensor
    slide_features: Tensor
    positions: Tensor
    neighbor_features: Tensor
    neighbor_mask: Tensor
    rows: Tensor
    labels: Tensor


def normalize_patches(patches: Tensor) -> Tensor:
    """uint8 RGB (B, 3, P, P) -> float with ImageNet's mean and standard deviation."""
    mean = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD).view(3, 1, 1)
    return (patches.float() / 255 - mean) / std


def make_section_batch(encoded: EncodedSection) -> TrainingBatch:
    """A whole section as one batch."""
    return _make_batch(encoded, torch.arange(len(encoded.section)), encoded.section.patches)


def predict_batch(network: DKAN | Ensemble, batch: TrainingBatch) -> Tensor:
    """What the network predicts for a whole section, (M, G) on the label scale."""
    return network.predict(
        batch["patches"],
        batch["slide_features"],
        batch["positions"],
        batch["neighbor_features"],
        batch["neighbor_mask"],
    )["final"]


class SectionBatchDataset(IterableDataset):
    """Shuffled batches, each of one view of its section.

    Only the target patch is mirrored and turned, each in its own way.

    Every pass draws anew, from a generator that is seeded once. Where several processes train
    together all of them draw the same plan and each takes its share of the batches, as many as
    the others: what is missing is taken from the front once more.
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
        rank, processes = _rank_and_world_size()
        order += order[: -len(order) % processes]
        for turn, i in enumerate(order):
            section, rows = plan[i]
            section = self._sample_view(section)
            kinds = torch.randint(8, (len(rows),), generator=self.generator)
            if turn % processes == rank:
                yield _make_batch(
                    section, rows, _rotate_and_flip(section.section.patches[rows], kinds)
                )

    def _sample_view(self, section: EncodedSection) -> EncodedSection:
        """The section itself or one of its views, each as likely."""
        looks = (section, *section.views)
        return looks[int(torch.randint(len(looks), (1,), generator=self.generator))]

    def _count_batches(self, encoded: EncodedSection) -> int:
        return max(1, round(len(encoded.section) / self.batch_size))


def _rank_and_world_size() -> tuple[int, int]:
    """This process's number, and how many train together."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _rotate_and_flip(patches: Tensor, symmetries: Tensor) -> Tensor:
    out = torch.empty_like(patches)
    for kind in range(8):
        chosen = symmetries == kind
        turned = torch.rot90(patches[chosen], kind % 4, dims=(2, 3))
        out[chosen] = turned.flip(3) if kind >= 4 else turned
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
