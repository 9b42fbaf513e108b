"""Training hyper-parameters, named presets, and changes given as `name=value`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ..errors import SpotsError
from ..model.network.dkan_config import DKANConfig, StackConfig
from .data.augmentation import Augmentation
from .option_choices import SettingsPreset

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


def make_preset_settings(preset: SettingsPreset) -> TrainSettings:
    """The settings of a preset."""
    return TrainSettings() if preset is SettingsPreset.bundled else _published_settings()


def apply_setting_changes(settings: TrainSettings, changes: Sequence[str]) -> TrainSettings:
    """The settings with some of them changed, each given as ``name=value``.

    Values are JSON: ``standardise=false``, ``epochs=40``, ``augmentation=null``; a part of the
    augmentation is ``augmentation.views=6``.

    Raises SpotsError for a name that is not a setting, or a value of another kind.
    """
    for change in changes:
        name, _, text = change.partition("=")
        try:
            settings = _replace_nested(settings, name.strip().split("."), json.loads(text))
        except (KeyError, ValueError, TypeError) as error:
            raise SpotsError(
                f"--set {change} changes no setting; give name=value, such as lr=0.001, "
                "standardise=false or augmentation=null."
            ) from error
    return settings


def _replace_nested(part: Any, names: list[str], value: Any) -> Any:
    kinds = {f.name: str(f.type) for f in fields(part)}
    kind = kinds[names[0]]
    if len(names) > 1:
        return replace(
            part, **{names[0]: _replace_nested(getattr(part, names[0]), names[1:], value)}
        )
    if value is None:
        fits = "None" in kind
    elif isinstance(value, bool):
        fits = kind == "bool"
    elif isinstance(value, int):
        fits = "int" in kind or "float" in kind
    else:
        fits = type(value).__name__ in kind
    if not fits:
        raise TypeError(kind)
    return replace(part, **{names[0]: value})


def _published_settings() -> TrainSettings:
    """HER2+ as in the paper (dkan-method.md, sections 3 and 4): depths, losses and schedule.

    Heads, ratios and dropouts are not stated there; these make 251 M parameters, where the paper
    has 228 to 278 M. Wants a GPU.
    """

    def stack(depth: int) -> StackConfig:
        return StackConfig(depth=depth, heads=8, ratio=4.0, dropout=0.1)

    return TrainSettings(
        patch_px=224,
        dim=1024,
        text_dim=1024,
        trunk="resnet18",
        trunk_dim=512,
        contrastive_factor=1.0,
        correlation=0.0,
        genes_per_step=None,
        contrastive_rows=None,
        batch=128,
        epochs=200,
        patience=20,
        lr=1e-4,
        weight_decay=0.0,
        average=0.0,
        members=1,
        standardise=False,
        augmentation=None,
        network=DKANConfig(
            genes=250,
            trunk="resnet18",
            trunk_dim=512,
            fusion=stack(1),
            global_=stack(5),
            neighbor=stack(4),
            image=stack(4),
            expression=stack(3),
            text=stack(3),
        ),
    )
