"""DKAN: network, tile encoders, checkpoint file and import of published checkpoints.

Nothing here loads torch before it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checkpoint import Checkpoint, PatchGeometry, describe_checkpoint, load_checkpoint, save_checkpoint
    from .config import DKANConfig, StackConfig
    from .network import DKAN
    from .published import convert_published

_HOME = {
    "Checkpoint": "checkpoint",
    "DKAN": "network",
    "DKANConfig": "config",
    "Patch": "checkpoint",
    "Stack": "config",
    "convert_published": "published",
    "describe": "checkpoint",
    "load_checkpoint": "checkpoint",
    "save_checkpoint": "checkpoint",
}

__all__ = [
    "DKAN",
    "Checkpoint",
    "DKANConfig",
    "PatchGeometry",
    "StackConfig",
    "convert_published",
    "describe_checkpoint",
    "load_checkpoint",
    "save_checkpoint",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
