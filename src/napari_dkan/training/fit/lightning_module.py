"""DKAN as a Lightning module: losses, optimizer and validation score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from ...model.network.activation_checkpointing import activation_checkpoint, refine_gene_rows
from ...model.network.attention_blocks import SingleKeyTransformer
from ...model.network.dkan_network import DKAN
from ..data.section_batches import TrainingBatch, predict_batch
from ..metrics import gene_pcc
from ..train_settings import TrainSettings
from .losses import compute_adaptive_weights, correlation_loss, info_nce_loss, supervised_loss


@dataclass(frozen=True)
class ForwardOutput:
    """Standardised predictions of some genes (B, g), their tokens (B, g, d), and which genes."""

    final: Tensor
    auxiliary: tuple[Tensor, ...]
    image_tokens: Tensor
    expression_tokens: Tensor | None
    genes: Tensor


class DKANLightningModule(pl.LightningModule):
    """Trains on standardised labels, so that every gene weighs the same."""

    def __init__(self, network: DKAN, settings: TrainSettings) -> None:
        super().__init__()
        self.network = network
        self.settings = settings
        self.draws = torch.Generator().manual_seed(settings.seed)

    def training_step(self, batch: TrainingBatch, index: int) -> Tensor:
        s = self.settings
        labels = self.network.from_label_scale(batch["labels"])
        out = self._forward(batch, labels if s.contrastive_factor > 0 else None)
        wanted = labels[:, out.genes]
        loss = supervised_loss(out.final, out.auxiliary, wanted, s.alpha, s.detach)
        if s.correlation > 0:
            heads = (out.final, *out.auxiliary)
            loss = loss + s.correlation * sum(correlation_loss(h, wanted) for h in heads)
        if out.expression_tokens is not None:
            image, expression = out.image_tokens.flatten(0, 1), out.expression_tokens.flatten(0, 1)
            if s.contrastive_rows is not None and len(image) > s.contrastive_rows:
                chosen = self._sample_indices(len(image), s.contrastive_rows)
                image, expression = image[chosen], expression[chosen]
            aligned = info_nce_loss(image, expression, s.temperature)
            weights = compute_adaptive_weights([loss, aligned], [1.0, s.contrastive_factor])
            # twice, so that the step does not shrink when the second loss joins in
            loss = 2 * (weights[0] * loss + weights[1] * aligned)
        self.log("loss", loss, batch_size=len(labels), on_epoch=True, on_step=False)
        return loss

    def _forward(self, batch: TrainingBatch, expression: Tensor | None) -> ForwardOutput:
        """A pass over all genes, or exactly that pass for some of them, drawn at random.

        Genes do not see each other behind the text encoder, so leaving some out changes nothing
        for the others, and the time is mostly in the gene rows.
        """
        net, wanted = self.network, self.settings.genes_per_step
        total = net.config.genes
        genes = (
            torch.arange(total, device=net.device)
            if wanted is None or wanted >= total
            else self._sample_indices(total, wanted)
        )
        slide = self._run_stage(net.encode_global, batch["slide_features"], batch["positions"])
        context = slide[batch["rows"]]
        fused = self._run_stage(
            net.fuse,
            batch["patches"],
            net.standardize_by_slide(batch["neighbor_features"], batch["slide_features"]),
            batch["neighbor_mask"],
            context,
        )
        tokens = self._run_stage(net.encode_genes)[None, genes]
        image = self._refine(net.image, tokens, fused.z)
        heads = (
            net.head_fused(fused.z),
            net.head_target(fused.target_mean),
            net.head_neighbor(fused.neighbor_mean),
            net.head_global(context),
        )
        return ForwardOutput(
            net.head(image).squeeze(-1),
            tuple(head[:, genes] for head in heads),
            image,
            None
            if expression is None
            else self._refine(net.expression, tokens, net.expression_encoder(expression)),
            genes,
        )

    def _run_stage(self, stage: Callable[..., Any], *given: Tensor) -> Any:
        if self.settings.checkpoint_rows is None:
            return stage(*given)
        return activation_checkpoint(self.network, stage, *given)

    def _refine(self, stack: SingleKeyTransformer, genes: Tensor, token: Tensor) -> Tensor:
        rows = self.settings.checkpoint_rows
        return stack(genes, token) if rows is None else refine_gene_rows(stack, genes, token, rows)

    def _sample_indices(self, total: int, wanted: int) -> Tensor:
        return torch.randperm(total, generator=self.draws)[:wanted].to(self.network.device)

    def validation_step(self, batch: TrainingBatch, index: int) -> None:
        predicted = predict_batch(self.network, batch)
        pcc = gene_pcc(predicted.cpu().numpy(), batch["labels"].cpu().numpy())
        known = pcc[pcc == pcc]
        self.log("val_pcc", float(known.mean()) if len(known) else 0.0, batch_size=1)

    def configure_optimizers(self) -> Any:
        s = self.settings
        # matrices decay; norms, biases and position tables do not
        matrices = [p for p in self.network.parameters() if p.ndim > 1]
        others = [p for p in self.network.parameters() if p.ndim <= 1]
        optimiser = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": s.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=s.lr,
        )
        return {
            "optimizer": optimiser,
            "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimiser, 50, 0.9),
        }
