"""Auxiliary losses that can be switched on in the training of any method.

They see what every method has: the fused tokens of a batch, the features of the own tiles and the
labels. Some have weights of their own, which are trained with the network and are not stored with
it. Which of the details are those of the papers is in docs/methods.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import SpotsError
from ...model.network.branch_encoders import ExpressionEncoder
from ...model.network.network_config import NetworkConfig
from ..gene_text import GeneTextFeatures
from ..train_settings import AuxiliaryWeights

RANKED_SHIFTS = 16  # pairs of every spot and anchor in one step, of up to B - 2
MASKED_SHARE = 0.75  # of the numbers of a spot that are restored from the others
ALIGNMENT, RETENTION = 0.5, 0.1  # weights of the parts of MIRROR as published


@dataclass(frozen=True)
class BatchTokens:
    """B spots of one section as the losses see them.

    Attributes
    ----------
    z
        Fused tokens (B, d).
    tiles
        Features (B, f) of the spots' own tiles, as the network gets them.
    labels
        (B, G), standardized.
    """

    z: Tensor
    tiles: Tensor
    labels: Tensor


class AuxiliaryLosses(nn.Module):
    """The weighted sum of the losses that are switched on.

    Attributes
    ----------
    weights
        Weight of each loss by its name; empty where none is switched on.

    Raises
    ------
    SpotsError
        When a loss needs gene text and there is none.
    """

    def __init__(
        self,
        weights: AuxiliaryWeights,
        config: NetworkConfig,
        gene_text: GeneTextFeatures | None,
    ) -> None:
        super().__init__()
        self.weights = weights.switched_on()
        self.losses = nn.ModuleDict({n: _LOSSES[n](config, gene_text) for n in self.weights})

    def forward(self, batch: BatchTokens, generator: torch.Generator) -> Tensor:
        """Compute the sum, in 32 bits; what is random is drawn from the generator."""
        total = batch.z.new_zeros((), dtype=torch.float32)
        with torch.autocast(batch.z.device.type, enabled=False):
            batch = BatchTokens(batch.z.float(), batch.tiles.float(), batch.labels.float())
            for name, loss in self.losses.items():
                total = total + self.weights[name] * loss(batch, generator)
        return total


class RankingLoss(nn.Module):
    """Spots are ordered by their likeness to a spot in the images as in the expression.

    RankByGene: Huang et al., arXiv 2411.15076.
    """

    def forward(self, batch: BatchTokens, generator: torch.Generator) -> Tensor:
        n_others = len(batch.z) - 1
        shifts = torch.randperm(max(0, n_others - 1), generator=generator)[:RANKED_SHIFTS] + 1
        return ranking_loss(batch.z, batch.labels, shifts.tolist())


def ranking_loss(image: Tensor, expression: Tensor, shifts: Sequence[int]) -> Tensor:
    """Compute the ranking consistency of B images and their expression.

    For an anchor and two other spots the difference of their cosine similarities to the anchor
    has to be in the images what it is in the expression, or more in the same direction: a hinge
    loss whose margin is the difference in the expression. The mean over anchors and pairs; 0
    without a pair.

    Parameters
    ----------
    image, expression
        (B, d) and (B, G).
    shifts
        Which of the B - 1 other spots are pairs: each with those that follow it by so many places,
        around the end. All from 1 to B - 2 are all pairs.
    """
    found, wanted = _similarity_to_others(image), _similarity_to_others(expression)
    total = found.new_zeros(())
    for shift in shifts:
        found_step = found - found.roll(shift, dims=1)
        wanted_step = wanted - wanted.roll(shift, dims=1)
        total = total + F.relu(wanted_step.abs() - wanted_step.sign() * found_step).mean()
    return total / max(1, len(shifts))


def _similarity_to_others(x: Tensor) -> Tensor:
    """Compute cosine similarities (B, B - 1) of each row (B, d) to the others, in order."""
    unit = F.normalize(x, dim=1)
    is_other = ~torch.eye(len(x), dtype=torch.bool, device=x.device)
    return (unit @ unit.T)[is_other].view(len(x), -1)


class MirrorLoss(nn.Module):
    """Images and expression are aligned, and each retains what is its own.

    MIRROR: Wang et al., arXiv 2503.00374. Alignment is a contrast of both, retention the
    restoration of masked tile features from z, and of masked labels from an embedding of the
    others.
    """

    def __init__(self, config: NetworkConfig, gene_text: GeneTextFeatures | None) -> None:
        super().__init__()
        d = config.dim
        self.expression = ExpressionEncoder(config.genes, d, dropout=0.0)
        self.align_image, self.align_expression = nn.Linear(d, d), nn.Linear(d, d)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.restore_tiles = _make_decoder(d, config.feature_dim)
        self.restore_labels = _make_decoder(d, config.genes)

    def forward(self, batch: BatchTokens, generator: torch.Generator) -> Tensor:
        image = self.align_image(batch.z)
        expression = self.align_expression(self.expression(batch.labels))
        cosines = F.normalize(image, dim=1) @ F.normalize(expression, dim=1).T
        alignment = scaled_contrast(cosines, cosines.T, self.log_scale.exp())
        masked_tiles, masked_labels = (
            _draw_mask(x, generator) for x in (batch.tiles, batch.labels)
        )
        visible = self.expression(batch.labels.masked_fill(masked_labels, 0))
        retention = masked_error(
            self.restore_tiles(batch.z), batch.tiles, masked_tiles
        ) + masked_error(self.restore_labels(visible), batch.labels, masked_labels)
        return ALIGNMENT * alignment + RETENTION * retention


def scaled_contrast(from_image: Tensor, to_image: Tensor, scale: Tensor) -> Tensor:
    """Compute the contrast in both directions, with the pairs as positives.

    Parameters
    ----------
    from_image, to_image
        Cosine similarities (B, B) or more columns; positives are on the diagonal.
    scale
        Factor of the similarities, which is trained and at most 100.
    """
    pairs = torch.arange(len(from_image), device=from_image.device)
    scale = scale.clamp(max=100)
    directions = (F.cross_entropy(scale * cosines, pairs) for cosines in (from_image, to_image))
    return torch.stack(list(directions)).mean()


def masked_error(restored: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Compute the mean squared error over the numbers that are masked; 0 where none is."""
    return ((restored - values).square() * mask).sum() / mask.sum().clamp_min(1)


def _draw_mask(values: Tensor, generator: torch.Generator) -> Tensor:
    return (torch.rand(values.shape, generator=generator) < MASKED_SHARE).to(values.device)


def _make_decoder(width: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, outputs))


class PairingLoss(nn.Module):
    """A tile goes with the text of its genes, each at the value that is its own.

    The pairing of CoMTIP: Qian et al., arXiv 2509.16892. The text of a spot is the sum of that of
    its genes, weighted by their labels. A tile is told from the text of the other spots, and from
    that of all spots with their values at other genes.

    Raises SpotsError if there is no gene text.
    """

    text: Tensor

    def __init__(self, config: NetworkConfig, gene_text: GeneTextFeatures | None) -> None:
        super().__init__()
        if gene_text is None or gene_text.basis is None:
            raise SpotsError(
                "The auxiliary loss pairing compares tiles with the text of their genes, and there "
                "is none; make it by `napari-dkan genes build` and give it by --gene-text."
            )
        self.register_buffer("text", gene_text.features.float(), persistent=False)
        self.image = nn.Linear(config.dim, config.dim)
        self.name = nn.Linear(self.text.shape[1], config.dim, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, batch: BatchTokens, generator: torch.Generator) -> Tensor:
        other_genes = torch.randperm(len(self.text), generator=generator).to(self.text.device)
        names, image = self.name(self.text), F.normalize(self.image(batch.z), dim=1)
        paired, broken = (
            F.normalize(values @ names, dim=1)
            for values in (batch.labels, batch.labels[:, other_genes])
        )
        from_image = image @ torch.cat([paired, broken]).T
        return scaled_contrast(from_image, paired @ image.T, self.log_scale.exp())


_LOSSES: dict[str, Callable[[NetworkConfig, GeneTextFeatures | None], nn.Module]] = {
    "ranking": lambda config, gene_text: RankingLoss(),
    "mirror": MirrorLoss,
    "pairing": PairingLoss,
}
