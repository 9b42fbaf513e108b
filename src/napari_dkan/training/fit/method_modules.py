"""Lightning modules of the methods beside DKAN, with the losses as published.

Features, views, depth handling, optimizer, schedule and the choice of epochs are those of DKAN, so
that methods are compared and not encoders. Departures from the papers are in docs/methods.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ...model.encoders.combined_encoder import find_stain_features
from ...model.encoders.stain_encoder import GRADIENT_ENERGY, NUCLEI
from ...model.methods.bg_triplex import BGTriplex
from ...model.methods.gene_dml import GeneDML
from ...model.methods.hifusion import HierarchyTokens, HiFusion
from ...model.methods.linear import LinearNetwork
from ...model.methods.method_configs import BGTriplexConfig, MclSTExpConfig, RetrievalConfig
from ...model.methods.method_networks import create_network
from ...model.methods.retrieval import Bleep, MclSTExp, RetrievalNetwork
from ...model.methods.stem import Stem
from ...model.methods.triplex import Triplex
from ...model.network.dkan_config import DKANConfig
from ...model.network.dkan_network import DKAN
from ...model.network.network_interface import ExpressionNetwork, FusedTokens
from ..data.prepared_section import EncodedSection
from ..data.section_batches import TrainingBatch
from ..gene_text import GeneTextFeatures
from ..network_shapes import make_network_config
from ..train_settings import TrainSettings
from .lightning_module import DKANLightningModule, ExpressionLightningModule
from .losses import (
    alignment_loss,
    instance_group_loss,
    instance_loss,
    smoothed_contrast,
    supervised_loss,
    symmetric_contrast,
)

NOISED_COPIES = 8  # of each spot of a batch of Stem


class MethodLightningModule(ExpressionLightningModule):
    """Training of a method whose loss takes the tokens of a batch and its standardized labels."""

    def compute_loss(self, batch: TrainingBatch) -> Tensor:
        """Encode a batch and compute the method's loss, and the auxiliary ones."""
        net = self.network
        slide = batch["slide_features"]
        context = net.encode_global(slide, batch["positions"])[batch["rows"]]
        neighbors = net.standardize_by_slide(batch["neighbor_features"], slide)
        fused = net.fuse(batch["patches"], neighbors, batch["neighbor_mask"], context)
        labels = net.from_label_scale(batch["labels"])
        positions = batch["positions"] - batch["positions"].amin(dim=0)
        loss = self.compute_method_loss(fused, context, labels, positions[batch["rows"]])
        return loss + self.compute_auxiliary_loss(fused.z, neighbors, labels)

    def compute_method_loss(
        self, fused: FusedTokens, context: Tensor, labels: Tensor, positions: Tensor
    ) -> Tensor:
        """Compute the loss of B spots.

        Parameters
        ----------
        fused, context
            Tokens and global tokens (B, d).
        labels
            (B, G), standardized.
        positions
            Array coordinates (B, 2) from 0.
        """
        raise NotImplementedError


class LinearModule(MethodLightningModule):
    """Squared error, with a penalty on the weights: trained to the end it is ridge regression.

    For N spots in a batch of the whole data, the penalty of the ridge regression is N times
    ``settings.weight_decay``.
    """

    network: LinearNetwork

    @property
    def weight_decay(self) -> float:
        return 0.0  # the penalty is in the loss, where it has the minimum of a ridge regression

    def compute_method_loss(
        self, fused: FusedTokens, context: Tensor, labels: Tensor, positions: Tensor
    ) -> Tensor:
        head = self.network.head
        penalty = self.settings.weight_decay * head.weight.square().sum() / labels.shape[1]
        return F.mse_loss(head(fused.z), labels) + penalty


class TriplexModule(MethodLightningModule):
    """Squared error of the fused head; the three others learn from labels and fused head."""

    network: Triplex

    def compute_method_loss(
        self, fused: FusedTokens, context: Tensor, labels: Tensor, positions: Tensor
    ) -> Tensor:
        final, *others = self.network.apply_auxiliary_heads(fused, context)
        return supervised_loss(final, others, labels, self.settings.alpha, self.settings.detach)


class BleepModule(MethodLightningModule):
    """Contrast in both directions, towards the similarity of the pairs among themselves."""

    network: Bleep

    def compute_method_loss(
        self, fused: FusedTokens, context: Tensor, labels: Tensor, positions: Tensor
    ) -> Tensor:
        return smoothed_contrast(fused.z, self.network.encode_expression(labels, positions))


class MclSTExpModule(MethodLightningModule):
    """Contrast in both directions, with the pairs as positives."""

    network: MclSTExp

    def compute_method_loss(
        self, fused: FusedTokens, context: Tensor, labels: Tensor, positions: Tensor
    ) -> Tensor:
        return symmetric_contrast(fused.z, self.network.encode_expression(labels, positions))


class StemModule(MethodLightningModule):
    """Squared error of v over all noise levels, of several noised copies of each spot."""

    network: Stem

    def compute_method_loss(
        self, fused: FusedTokens, context: Tensor, labels: Tensor, positions: Tensor
    ) -> Tensor:
        labels = labels[:, None].expand(-1, NOISED_COPIES, -1)
        draws = torch.rand(labels.shape[:2], generator=self.generator).to(labels.device)
        noise = torch.randn(labels.shape, generator=self.generator).to(labels.device)
        angle = draws * (math.pi / 2)
        cosine, sine = angle.cos()[..., None], angle.sin()[..., None]
        predicted = self.network.predict_velocity(cosine * labels + sine * noise, angle, fused.z)
        return F.mse_loss(predicted, cosine * noise - sine * labels)


class HiFusionModule(MethodLightningModule):
    """Squared error of the fused token and of each level, and the alignment of the levels."""

    network: HiFusion

    def compute_method_loss(
        self, fused: FusedTokens, context: Tensor, labels: Tensor, positions: Tensor
    ) -> Tensor:
        assert isinstance(fused, HierarchyTokens)
        loss = F.mse_loss(self.network.head(fused.z), labels)
        predicted = self.network.level_head(fused.levels)
        loss = loss + F.mse_loss(predicted, labels[:, None].expand_as(predicted))
        return loss + alignment_loss(fused.levels)


class GeneDMLModule(MethodLightningModule):
    """Squared error, and discrimination of spots at each scale and of groups across modalities."""

    network: GeneDML

    def compute_method_loss(
        self, fused: FusedTokens, context: Tensor, labels: Tensor, positions: Tensor
    ) -> Tensor:
        temperature = self.settings.temperature
        expression = self.network.expression_encoder(labels)
        scales = (fused.target_mean, fused.neighbor_mean, context)
        by_spot = instance_loss(scales, expression, temperature)
        by_group = instance_group_loss(fused.z, expression, temperature)
        error = F.mse_loss(self.network.predict_standardized(fused.z), labels)
        return error + self.settings.contrastive_factor * (by_spot + by_group)


_MODULES: dict[type[ExpressionNetwork], type[ExpressionLightningModule]] = {
    DKAN: DKANLightningModule,
    Triplex: TriplexModule,
    BGTriplex: TriplexModule,
    LinearNetwork: LinearModule,
    Bleep: BleepModule,
    MclSTExp: MclSTExpModule,
    Stem: StemModule,
    GeneDML: GeneDMLModule,
    HiFusion: HiFusionModule,
}


def make_lightning_module(
    network: ExpressionNetwork, settings: TrainSettings, gene_text: GeneTextFeatures | None = None
) -> ExpressionLightningModule:
    """Make the module that trains a network by its method.

    Raises SpotsError if an auxiliary loss needs gene text and there is none.
    """
    return _MODULES[type(network)](network, settings, gene_text)


def build_untrained_network(
    sections: Sequence[EncodedSection], gene_text: GeneTextFeatures, settings: TrainSettings
) -> ExpressionNetwork:
    """Build a network of the settings' method, on the label scale of the sections."""
    labels = torch.cat([s.section.labels for s in sections])
    config = make_network_config(settings, labels.shape[1])
    frozen = sections[0].section.frozen_features
    if isinstance(config, BGTriplexConfig) and frozen is not None:
        nuclei, edges = (find_stain_features(frozen.spec, k) for k in (NUCLEI, GRADIENT_ENERGY))
        config = replace(config, nuclei=nuclei, edges=edges)
    if isinstance(config, RetrievalConfig):
        config = replace(config, bank=len(labels))
    if isinstance(config, MclSTExpConfig):
        arrays = [s.section.positions for s in sections]
        extent = max(int((a.amax(dim=0) - a.amin(dim=0)).max()) for a in arrays)
        config = replace(config, positions=max(config.positions, extent + 1))
    network = (
        DKAN(config, gene_text.features)
        if isinstance(config, DKANConfig)
        else create_network(config)
    )
    network.label_mean.copy_(labels.mean(dim=0))
    # the lower limit keeps the noise of a gene that hardly varies small
    network.label_std.copy_(labels.std(dim=0, unbiased=False).clamp_min(0.02))
    if isinstance(network, RetrievalNetwork):
        network.fill_bank(
            [network.from_label_scale(s.section.labels) for s in sections],
            [s.section.positions for s in sections],
        )
    return network
