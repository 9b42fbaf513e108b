"""Networks as Lightning modules: optimizer and validation scores of all, and DKAN's loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from ...model.network.activation_checkpointing import activation_checkpoint, refine_gene_rows
from ...model.network.attention_blocks import SingleKeyTransformer
from ...model.network.dkan_network import DKAN
from ...model.network.network_interface import ExpressionNetwork
from ..data.section_batches import TrainingBatch, ValidationBatch, predict_batch
from ..depth_metrics import depth_partial_pcc
from ..gene_text import GeneTextFeatures
from ..metrics import mean_gene_pcc, nanmean
from ..train_settings import TrainSettings
from .auxiliary_losses import AuxiliaryLosses, BatchTokens
from .losses import compute_adaptive_weights, correlation_loss, info_nce_loss, supervised_loss


@dataclass(frozen=True)
class ForwardOutput:
    """Predictions of g genes for B spots.

    Attributes
    ----------
    final
        (B, g) standardized predictions.
    auxiliary
        (B, g) standardized predictions of each auxiliary head.
    image_tokens, expression_tokens
        (B, g, d) gene tokens of the image and of the expression branch; None without contrast.
    genes
        (g,) rows of the genes in the panel.
    z, neighbors
        Fused tokens (B, d) and neighbour features (B, K, d) of the spots.
    """

    final: Tensor
    auxiliary: tuple[Tensor, ...]
    image_tokens: Tensor
    expression_tokens: Tensor | None
    genes: Tensor
    z: Tensor
    neighbors: Tensor


class ExpressionLightningModule(pl.LightningModule):
    """Training of a network on standardized labels, so that every gene has the same weight.

    A method implements `compute_loss`, to which it adds `compute_auxiliary_loss`. Optimizer,
    schedule and validation are those of all.

    Raises SpotsError if an auxiliary loss needs gene text and there is none.
    """

    network: ExpressionNetwork

    def __init__(
        self,
        network: ExpressionNetwork,
        settings: TrainSettings,
        gene_text: GeneTextFeatures | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.auxiliary = AuxiliaryLosses(settings.auxiliary, network.config, gene_text)
        self.settings = settings
        self.generator = torch.Generator().manual_seed(settings.seed)

    @property
    def weight_decay(self) -> float:
        """Weight decay of matrices, apart from the gradient."""
        return self.settings.weight_decay

    def compute_loss(self, batch: TrainingBatch) -> Tensor:
        """Compute the loss of a batch."""
        raise NotImplementedError

    def compute_auxiliary_loss(self, z: Tensor, neighbors: Tensor, labels: Tensor) -> Tensor:
        """Compute the weighted sum of the auxiliary losses that are switched on.

        Parameters
        ----------
        z
            Fused tokens (B, d).
        neighbors
            Neighbour features (B, K, d), as the network gets them.
        labels
            (B, G), standardized.
        """
        tiles = self.network.own_tile_features(neighbors)
        loss: Tensor = self.auxiliary(BatchTokens(z, tiles, labels), self.generator)
        return loss

    def training_step(self, batch: TrainingBatch, index: int) -> Tensor:
        """Compute and log the loss of a batch."""
        loss = self.compute_loss(batch)
        self.log("loss", loss, batch_size=len(batch["labels"]), on_epoch=True, on_step=False)
        return loss

    def validation_step(self, batch: ValidationBatch, index: int) -> None:
        """Log depth-partial PCC and PCC-ALL of a section; 0 when no gene has a correlation."""
        predicted = predict_batch(self.network, batch).cpu().numpy()
        labels, depth = batch["labels"].cpu().numpy(), batch["depth"].cpu().numpy()
        scores = {
            "val_partial": nanmean(depth_partial_pcc(predicted, labels, depth)),
            "val_pcc": mean_gene_pcc(predicted, labels),
        }
        for name, score in scores.items():
            self.log(name, 0.0 if math.isnan(score) else score, batch_size=1)

    def configure_optimizers(self) -> Any:
        """Make AdamW with weight decay for matrices, not for norms and biases, and its schedule."""
        s = self.settings
        trained = [*self.network.parameters(), *self.auxiliary.parameters()]
        matrices = [p for p in trained if p.ndim > 1]
        others = [p for p in trained if p.ndim <= 1]
        optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": self.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=s.lr,
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 50, 0.9),
        }


class DKANLightningModule(ExpressionLightningModule):
    """Training of a DKAN."""

    network: DKAN

    def compute_loss(self, batch: TrainingBatch) -> Tensor:
        """Compute the supervised, the correlation and the contrastive loss of a batch."""
        s = self.settings
        labels = self.network.from_label_scale(batch["labels"])
        out = self._forward(batch, labels if s.contrastive_factor > 0 else None)
        target = labels[:, out.genes]
        loss = supervised_loss(out.final, out.auxiliary, target, s.alpha, s.detach)
        if s.correlation > 0:
            heads = (out.final, *out.auxiliary)
            loss = loss + s.correlation * sum(correlation_loss(h, target) for h in heads)
        if out.expression_tokens is not None:
            image, expression = out.image_tokens.flatten(0, 1), out.expression_tokens.flatten(0, 1)
            if s.contrastive_rows is not None and len(image) > s.contrastive_rows:
                rows = self._sample_indices(len(image), s.contrastive_rows)
                image, expression = image[rows], expression[rows]
            contrastive = info_nce_loss(image, expression, s.temperature)
            weights = compute_adaptive_weights([loss, contrastive], [1.0, s.contrastive_factor])
            # the factor 2 keeps the step size: the two weights sum to 1
            loss = 2 * (weights[0] * loss + weights[1] * contrastive)
        return loss + self.compute_auxiliary_loss(out.z, out.neighbors, labels)

    def _forward(self, batch: TrainingBatch, expression: Tensor | None) -> ForwardOutput:
        """Run the network for all genes, or for a random sample of them.

        Genes are independent after the text encoder, so a sample gives the same predictions as
        the full pass, and most of the time is spent in the gene rows.
        """
        net, n_sampled = self.network, self.settings.genes_per_step
        n_genes = net.config.genes
        genes = (
            torch.arange(n_genes, device=net.device)
            if n_sampled is None or n_sampled >= n_genes
            else self._sample_indices(n_genes, n_sampled)
        )
        slide = self._run_stage(net.encode_global, batch["slide_features"], batch["positions"])
        context = slide[batch["rows"]]
        neighbors = net.standardize_by_slide(batch["neighbor_features"], batch["slide_features"])
        fused = self._run_stage(
            net.fuse, batch["patches"], neighbors, batch["neighbor_mask"], context
        )
        tokens = self._run_stage(net.encode_genes)[None, genes]
        image = self._refine(net.image, tokens, fused.z)
        heads = net.apply_auxiliary_heads(fused, context)
        return ForwardOutput(
            net.head(image).squeeze(-1),
            tuple(head[:, genes] for head in heads),
            image,
            None
            if expression is None
            else self._refine(net.expression, tokens, net.expression_encoder(expression)),
            genes,
            fused.z,
            neighbors,
        )

    def _run_stage(self, stage: Callable[..., Any], *inputs: Tensor) -> Any:
        if self.settings.checkpoint_rows is None:
            return stage(*inputs)
        return activation_checkpoint(self.network, stage, *inputs)

    def _refine(self, stack: SingleKeyTransformer, genes: Tensor, token: Tensor) -> Tensor:
        rows = self.settings.checkpoint_rows
        return stack(genes, token) if rows is None else refine_gene_rows(stack, genes, token, rows)

    def _sample_indices(self, total: int, count: int) -> Tensor:
        return torch.randperm(total, generator=self.generator)[:count].to(self.network.device)
