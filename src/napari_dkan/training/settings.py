"""Everything that decides how a network is trained."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ..model.config import DKANConfig, StackConfig
from .augment import Augmentation

# Side of the published patch: 224 px at 0.688 um/px.
PUBLISHED_PATCH_UM = 154.112


@dataclass(frozen=True)
class TrainSettings:
    """Defaults are those of the bundled checkpoint: a few hundred spots, two CPU cores.

    dim : width of the network and of the tile encoder's features.
    dropout : on the way from pixels to a spot's token; gene_dropout : on the gene rows, where
        it costs as much time as all the rest.
    alpha : share of distillation in the auxiliary heads' loss; detach : whether the final
        prediction, their teacher, is left alone by it, which the published code does not do.
    temperature : of the contrastive loss.
    contrastive_factor : 1 as in the paper; the published code takes 3; 0 leaves the loss out. On
        few spots a tenth helps and 1 holds the prediction back.
    correlation : weight of each head's correlation loss over the batch; 0 leaves it out.
    text_dim : gene text numbers; more than dim, so that a learned map places each gene.
    genes_per_step, contrastive_rows : at most this many genes are predicted, and spot-gene rows
        contrasted, per step, drawn at random; None takes all, as published, which needs a GPU
        to be quick.
    checkpoint_rows : spot-gene rows worked on at once, keeping only the large products for the
        backward pass; for networks of the published size, exact in a fraction of the memory.
        None keeps everything.
    epochs : at most; patience : epochs without a better validation before stopping.
    average : decay of the running mean of the weights, which is what is kept; 0 for none.
    members : networks trained from different seeds, whose mean is the prediction.
    standardise : the network takes tile features relative to those of their own slide.
    augmentation : other looks at the training sections; None for none.
    network : another shape than the small one below; genes, dim and text_dim are taken from here.
    """

    patch_px: int = 56
    patch_um: float = PUBLISHED_PATCH_UM
    dim: int = 64
    text_dim: int = 192
    trunk: str = "lcnet_035"
    trunk_dim: int = 176
    dropout: float = 0.3
    gene_dropout: float = 0.0
    alpha: float = 0.3
    detach: bool = True
    temperature: float = 0.1
    contrastive_factor: float = 0.1
    correlation: float = 0.5
    genes_per_step: int | None = 64
    contrastive_rows: int | None = 1024
    checkpoint_rows: int | None = None
    batch: int = 64
    epochs: int = 60
    patience: int = 15
    lr: float = 4e-3
    weight_decay: float = 0.05
    average: float = 0.95
    seed: int = 2021
    members: int = 4
    standardise: bool = True
    augmentation: Augmentation | None = field(default_factory=Augmentation)
    network: DKANConfig | None = None

    def network_config(self, genes: int) -> DKANConfig:
        if self.network is not None:
            return replace(self.network, genes=genes, dim=self.dim, text_dim=self.text_dim)

        def stack(depth: int, dropout: float = self.dropout) -> StackConfig:
            return StackConfig(depth=depth, heads=4, ratio=2.0, dropout=dropout)

        return DKANConfig(
            genes=genes,
            dim=self.dim,
            text_dim=self.text_dim,
            trunk=self.trunk,
            trunk_dim=self.trunk_dim,
            standardise=self.standardise,
            expression_dropout=self.dropout,
            fusion=stack(1),
            global_=stack(2),
            neighbor=stack(1),
            image=stack(2, self.gene_dropout),
            expression=stack(1, self.gene_dropout),
            text=stack(1, self.gene_dropout),
        )
