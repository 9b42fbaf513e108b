"""Training settings: hyper-parameters, presets, changes as `name=value`, and option choices.

This module does not import torch, so that `--help` is fast.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from typing import Any

from ..errors import SpotsError
from ..model.methods.method_configs import DKAN_METHOD
from ..model.network.dkan_config import NO_TRUNK, DKANConfig
from ..model.network.network_config import StackConfig


class FoldUnit(StrEnum):
    """Unit that a cross-validation leaves out."""

    section = "section"
    patient = "patient"


class SettingsPreset(StrEnum):
    """Preset of the training settings.

    `bundled` is the small network that comes with the package, `published` that of the paper.
    """

    bundled = "bundled"
    published = "published"


class Precision(StrEnum):
    """Precision of the forward pass; weights and optimizer state are always float32."""

    auto = "auto"  # mixed on a GPU, 32 bits elsewhere
    float32 = "32"
    float16 = "16"
    bfloat16 = "bf16"


class StainMethod(StrEnum):
    """Method that normalizes the stain of every slide to that of the training sections."""

    macenko = "macenko"
    reinhard = "reinhard"


class BaselineName(StrEnum):
    """Baselines that `evaluate` can fit."""

    ridge = "ridge"
    ridge_stain = "ridge_stain"
    nsl = "nsl"
    pca_ridge = "pca_ridge"
    training_mean = "training_mean"


PUBLISHED_PATCH_UM = 154.112  # side of the published patch: 224 px at 0.688 um/px


LogFunction = Callable[[str], None]


def ignore_log(line: str) -> None:
    """Discard a line of the log."""


@dataclass(frozen=True)
class Augmentation:
    """Number and strength of the augmented views of a training section.

    Attributes
    ----------
    views
        Views read of each section in addition to the unchanged one; every third keeps the stain.
    jitter_um
        Largest shift of a spot along each axis.
    amount
        Standard deviation of the logarithm of each stain's amount.
    colour
        Standard deviation of the change of the stains' optical densities.
    background
        Standard deviation of the absorption of the glass.
    """

    views: int = 6
    jitter_um: float = 46.0
    amount: float = 0.2
    colour: float = 0.06
    background: float = 0.03


@dataclass(frozen=True)
class AuxiliaryWeights:
    """Weights of the losses that are added to that of a method; 0 for none.

    Attributes
    ----------
    ranking
        Order of the similarities between spots (RankByGene).
    mirror
        Alignment of images and expression, and retention of each (MIRROR).
    pairing
        Contrast of tiles with the text of their genes (CoMTIP).

    Raises
    ------
    SpotsError
        When a weight is negative or no number.
    """

    ranking: float = 0.0
    mirror: float = 0.0
    pairing: float = 0.0

    def __post_init__(self) -> None:
        for name, weight in asdict(self).items():
            if not 0 <= weight < math.inf:
                raise SpotsError(
                    f"The weight of the auxiliary loss {name} is {weight}; it must be a number "
                    "from 0."
                )

    def switched_on(self) -> dict[str, float]:
        """Return the weights above 0 by the name of their loss."""
        return {name: weight for name, weight in asdict(self).items() if weight > 0}


@dataclass(frozen=True)
class TrainSettings:
    """Training hyper-parameters.

    The defaults are those of the bundled checkpoint: a few hundred spots, two CPU cores.

    Attributes
    ----------
    method
        Name of the method that is trained, see `model.methods`. What belongs to gene text and dual
        path has an effect on DKAN only.
    patch_px, patch_um
        Side of a target patch in pixels and in um.
    dim
        Width of the network.
    features
        Length of the tile encoder's features where a trained layer maps them to the network's
        width; 0 for features of that width. For an encoder of parts it comes from the sections.
    text_dim
        Length of the gene text features; above `dim`, so that a learned map places each gene.
    trunk, trunk_dim
        timm model of the target branch, and the width of its features; "none" for the features
        of the own tile in its place.
    dropout
        Dropout between the pixels and the token of a spot.
    gene_dropout
        Dropout in the gene rows, where it takes as much time as the rest of the step.
    alpha
        Share of distillation in the loss of the auxiliary heads.
    detach
        Whether the final prediction, the teacher of the auxiliary heads, gets no gradient from
        their loss. The published code does not detach it.
    temperature
        Temperature of the contrastive loss of DKAN, and of the two of Gene-DML.
    contrastive_factor
        Their weight: 1 in the papers, 3 in the published code of DKAN, 0 for none. On few spots
        0.1 helps and 1 harms the prediction of DKAN.
    correlation
        Weight of each head's correlation loss over the batch; 0 for none.
    genes_per_step, contrastive_rows
        Largest number of genes predicted, and of spot-gene rows contrasted, per step, drawn at
        random. None takes all, as published, which needs a GPU.
    checkpoint_rows
        Spot-gene rows computed at once with activation checkpointing: exact, with a fraction of
        the memory, for networks of the published size. None stores all activations.
    epochs
        Largest number of epochs.
    patience
        Epochs without a better validation score before training stops.
    average
        Decay of the exponential moving average of the weights, which is the trained network; 0
        for none.
    members
        Networks trained from different seeds; their mean is the prediction.
    standardise
        Whether tile features are standardized over their own slide.
    depth_residual
        Whether networks are trained on labels without the depth of the spots, which a linear path
        restores; see `fit.depth_residuals`. False trains on the labels, as published.
    depth_share
        Part of the predicted depth that is restored.
    ridge_share
        Weight of a ridge regression of the residuals in the mean with the networks.
    augmentation
        Augmented views of the training sections; None for none.
    auxiliary
        Weights of auxiliary losses, of any method.
    network
        Another shape than the small one below; genes, dim and text_dim are taken from here.
    """

    method: str = DKAN_METHOD
    patch_px: int = 56
    patch_um: float = PUBLISHED_PATCH_UM
    dim: int = 64
    text_dim: int = 192
    features: int = 0
    trunk: str = NO_TRUNK
    trunk_dim: int = 64
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
    depth_residual: bool = True
    depth_share: float = 0.7
    ridge_share: float = 0.0
    augmentation: Augmentation | None = field(default_factory=Augmentation)
    auxiliary: AuxiliaryWeights = AuxiliaryWeights()
    network: DKANConfig | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the settings as plain values.

        As older versions did where the method is DKAN and no auxiliary loss is switched on.
        """
        values = asdict(self)
        values["auxiliary"] = self.auxiliary.switched_on()
        if not values["auxiliary"]:
            del values["auxiliary"]
        if self.method == DKAN_METHOD:
            del values["method"]
        return values


def make_preset_settings(preset: SettingsPreset) -> TrainSettings:
    """Make the settings of a preset."""
    return TrainSettings() if preset is SettingsPreset.bundled else _published_settings()


def apply_setting_changes(settings: TrainSettings, changes: Sequence[str]) -> TrainSettings:
    """Change settings given as ``name=value``.

    Values are JSON: ``standardise=false``, ``epochs=40``, ``augmentation=null``; one field of
    the augmentation is ``augmentation.views=6``.

    Raises
    ------
    SpotsError
        For a name that is not a setting, or a value of another type.
    """
    for change in changes:
        name, _, text = change.partition("=")
        try:
            settings = _replace_nested(settings, name.strip().split("."), json.loads(text))
        except (KeyError, ValueError, TypeError) as error:
            raise SpotsError(
                f"--set {change} changes no setting; give name=value, such as lr=0.001, "
                "standardise=false or augmentation=null. Auxiliary losses are "
                f"{', '.join(f'auxiliary.{f.name}' for f in fields(AuxiliaryWeights))}."
            ) from error
    return settings


def _replace_nested(settings: Any, names: list[str], value: Any) -> Any:
    """Replace the field of this path of names, after a comparison of types."""
    name, *nested = names
    expected = {f.name: str(f.type) for f in fields(settings)}[name]
    if nested:
        value = _replace_nested(getattr(settings, name), nested, value)
        return replace(settings, **{name: value})
    if value is None:
        fits = "None" in expected
    elif isinstance(value, bool):
        fits = expected == "bool"
    elif isinstance(value, int):
        fits = "int" in expected or "float" in expected
    else:
        fits = type(value).__name__ in expected
    if not fits:
        raise TypeError(expected)
    return replace(settings, **{name: value})


def _published_settings() -> TrainSettings:
    """Make the settings of the paper for HER2+: depths, losses and schedule (docs/method.md).

    The paper states no heads, ratios and dropouts; these make 251 M parameters, where the paper
    has 228 to 278 M. Training needs a GPU.
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
        depth_residual=False,
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
