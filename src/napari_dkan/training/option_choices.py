"""Allowed values of command-line options. This module does not import torch, so that `--help` is fast."""

from __future__ import annotations

from enum import StrEnum


class FoldUnit(StrEnum):
    """What is left out together in a cross-validation."""

    section = "section"
    patient = "patient"


class SettingsPreset(StrEnum):
    """bundled : the small network that comes with the package. published : of the paper."""

    bundled = "bundled"
    published = "published"


class Precision(StrEnum):
    """Of the forward pass; weights and optimiser are always float32."""

    auto = "auto"  # mixed on a GPU, 32 bits elsewhere
    float32 = "32"
    float16 = "16"
    bfloat16 = "bf16"


class StainMethod(StrEnum):
    """What every slide's stain is brought to that of the training sections with."""

    macenko = "macenko"
    reinhard = "reinhard"


class BaselineName(StrEnum):
    """Baselines that can be fitted beside a checkpoint."""

    ridge = "ridge"
    ridge_stain = "ridge_stain"
    nsl = "nsl"
    pca_ridge = "pca_ridge"
    training_mean = "training_mean"
