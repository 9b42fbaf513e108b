"""Settings by name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from ..errors import SpotsError
from ..model.config import DKANConfig, StackConfig
from .choices import SettingsPreset
from .settings import TrainSettings


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
        return replace(part, **{names[0]: _replace_nested(getattr(part, names[0]), names[1:], value)})
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
