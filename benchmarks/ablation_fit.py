"""Fitting a network in ways the package does not offer, because they did not earn a place."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor
from torch.utils.data import DataLoader

from napari_dkan.model.network.dkan_network import DKAN
from napari_dkan.training.data.prepared_section import (
    PreparedSection,
    encode_section,
    fit_section_encoder,
)
from napari_dkan.training.data.section_batches import SectionBatchDataset, TrainingBatch
from napari_dkan.training.fit.fit_callback import FitCallback
from napari_dkan.training.fit.fit_model import ExponentialMovingAverage, FittedModel
from napari_dkan.training.fit.lightning_module import DKANLightningModule
from napari_dkan.training.fit.losses import compute_adaptive_weights, info_nce_loss, supervised_loss
from napari_dkan.training.gene_text import GeneTextFeatures
from napari_dkan.training.network_shapes import make_network_config
from napari_dkan.training.train_settings import TrainSettings


def ranking_loss(predicted: Tensor, labels: Tensor) -> Tensor:
    """Logistic loss on the order of every two spots, by gene; both (B, G).

    Pairs weigh as much as their labels differ, so that near ties do not count.
    """
    apart = labels[:, None] - labels[None]
    said = predicted[:, None] - predicted[None]
    weight = apart.abs()
    return (weight * F.softplus(-apart.sign() * said)).sum() / weight.sum().clamp_min(1e-6)


class RankingModule(DKANLightningModule):
    """As `DKANModule`, with the ranking loss where that has the correlation loss."""

    def training_step(self, batch: TrainingBatch, index: int) -> Tensor:
        s = self.settings
        labels = self.network.from_label_scale(batch["labels"])
        out = self._forward(batch, labels)
        assert out.expression_tokens is not None
        wanted = labels[:, out.genes]
        loss = supervised_loss(out.final, out.auxiliary, wanted, s.alpha, s.detach)
        heads = (out.final, *out.auxiliary)
        loss = loss + s.correlation * torch.stack([ranking_loss(h, wanted) for h in heads]).sum()
        image, expression = out.image_tokens.flatten(0, 1), out.expression_tokens.flatten(0, 1)
        chosen = self._sample_indices(len(image), s.contrastive_rows or len(image))
        aligned = info_nce_loss(image[chosen], expression[chosen], s.temperature)
        weights = compute_adaptive_weights([loss, aligned], [1.0, s.contrastive_factor])
        return 2 * (weights[0] * loss + weights[1] * aligned)


def fit_network(
    sections: Sequence[PreparedSection],
    text: GeneTextFeatures,
    settings: TrainSettings,
    epochs: int,
    module: type[DKANLightningModule] = DKANLightningModule,
    trunk: Mapping[str, Tensor] | None = None,
) -> FittedModel:
    """As `fit_model` for one network, with another module or first weights of its trunk."""
    encoder = fit_section_encoder(sections, settings.dim, settings.patch_um)
    encoded = [encode_section(s, encoder) for s in sections]
    pl.seed_everything(settings.seed, verbose=False)
    labels = torch.cat([s.labels for s in sections])
    network = DKAN(make_network_config(settings, labels.shape[1]), text.features)
    network.label_mean.copy_(labels.mean(dim=0))
    network.label_std.copy_(labels.std(dim=0, unbiased=False).clamp_min(0.02))
    if trunk is not None:
        network.trunk.load_state_dict(dict(trunk))
    mean = ExponentialMovingAverage(settings.average)
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=[
            WeightAveraging(use_buffers=True, multi_avg_fn=mean),
            FitCallback(settings.patience, settings.seed),  # seeds dropout in every epoch
        ],
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    batches = SectionBatchDataset(encoded, settings.batch, settings.seed)
    with warnings.catch_warnings():  # Lightning's advice
        warnings.simplefilter("ignore")
        trainer.fit(module(network, settings), DataLoader(batches, batch_size=None))
    return FittedModel(encoder, network.eval())
