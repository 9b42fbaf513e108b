"""DKAN: network, tile encoders, checkpoint file and import of published checkpoints.

Public names are imported on first use, so importing the package does not load torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checkpoint.checkpoint_card import describe_checkpoint
    from .checkpoint.checkpoint_file import (
        Checkpoint,
        load_checkpoint,
        save_checkpoint,
    )
    from .checkpoint.checkpoint_header import PatchGeometry
    from .checkpoint.published_import import convert_published
    from .network.dkan_config import DKANConfig
    from .network.dkan_network import DKAN
    from .network.network_config import StackConfig
    from .network.network_interface import ExpressionNetwork


_LAZY_EXPORTS = {
    "Checkpoint": "checkpoint.checkpoint_file",
    "DKAN": "network.dkan_network",
    "DKANConfig": "network.dkan_config",
    "ExpressionNetwork": "network.network_interface",
    "PatchGeometry": "checkpoint.checkpoint_header",
    "StackConfig": "network.network_config",
    "convert_published": "checkpoint.published_import",
    "describe_checkpoint": "checkpoint.checkpoint_card",
    "load_checkpoint": "checkpoint.checkpoint_file",
    "save_checkpoint": "checkpoint.checkpoint_file",
}

__all__ = [
    "DKAN",
    "Checkpoint",
    "DKANConfig",
    "ExpressionNetwork",
    "PatchGeometry",
    "StackConfig",
    "convert_published",
    "describe_checkpoint",
    "load_checkpoint",
    "save_checkpoint",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY_EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_LAZY_EXPORTS[name]}", __name__), name)
