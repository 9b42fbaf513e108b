"""Allowed values of command-line options; free of torch, so that `--help` is fast."""

from __future__ import annotations

from enum import StrEnum


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
