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

from napari_dkan.model.network import DKAN
from napari_dkan.training.batches import Batch, Epochs
from napari_dkan.training.fit import RunningMean
from napari_dkan.training.fit_model import Model
from napari_dkan.training.gene_text import GeneText
from napari_dkan.training.losses import adaptive_weights, info_nce, supervised
from napari_dkan.training.module import DKANModule
from napari_dkan.training.progress import Progress
from napari_dkan.training.sections import Section, encode, fit_encoder
from napari_dkan.training.settings import Settings


def ranking_loss(predicted: Tensor, labels: Tensor) -> Tensor:
    """Logistic loss on the order of every two spots, by gene; both (B, G).

    Pairs weigh as much as their labels differ, so that near ties do not count.
    """
    apart = labels[:, None] - labels[None]
    said = predicted[:, None] - predicted[None]
    weight = apart.abs()
    return (weight * F.softplus(-apart.sign() * said)).sum() / weight.sum().clamp_min(1e-6)


class RankingModule(DKANModule):
    """As `DKANModule`, with the ranking loss where that has the correlation loss."""

    def training_step(self, batch: Batch, index: int) -> Tensor:
        s = self.settings
        labels = self.network.from_label_scale(batch["labels"])
        out = self._forward(batch, labels)
        assert out.expression_tokens is not None
        wanted = labels[:, out.genes]
        loss = supervised(out.final, out.auxiliary, wanted, s.alpha, s.detach)
        heads = (out.final, *out.auxiliary)
        loss = loss + s.correlation * torch.stack([ranking_loss(h, wanted) for h in heads]).sum()
        image, expression = out.image_tokens.flatten(0, 1), out.expression_tokens.flatten(0, 1)
        chosen = self._some(len(image), s.contrastive_rows or len(image))
        aligned = info_nce(image[chosen], expression[chosen], s.temperature)
        weights = adaptive_weights([loss, aligned], [1.0, s.contrastive_factor])
        return 2 * (weights[0] * loss + weights[1] * aligned)


def fit_network(
    sections: Sequence[Section],
    text: GeneText,
    settings: Settings,
    epochs: int,
    module: type[DKANModule] = DKANModule,
    trunk: Mapping[str, Tensor] | None = None,
) -> Model:
    """As `fit_model` for one network, with another module or first weights of its trunk."""
    encoder = fit_encoder(sections, settings.dim, settings.patch_um)
    encoded = [encode(s, encoder) for s in sections]
    pl.seed_everything(settings.seed, verbose=False)
    labels = torch.cat([s.labels for s in sections])
    network = DKAN(settings.config(labels.shape[1]), text.features)
    network.label_mean.copy_(labels.mean(dim=0))
    network.label_std.copy_(labels.std(dim=0, unbiased=False).clamp_min(0.02))
    if trunk is not None:
        network.trunk.load_state_dict(dict(trunk))
    mean = RunningMean(settings.average)
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=[
            WeightAveraging(use_buffers=True, multi_avg_fn=mean),
            Progress(settings.patience, settings.seed),  # seeds dropout in every epoch
        ],
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    batches = Epochs(encoded, settings.batch, settings.seed)
    with warnings.catch_warnings():  # Lightning's advice
        warnings.simplefilter("ignore")
        trainer.fit(module(network, settings), DataLoader(batches, batch_size=None))
    return Model(encoder, network.eval())
