"""What a result was made from, so that two runs can be told apart."""

from __future__ import annotations

import hashlib
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from .. import __version__
from ..expression.panel import Panel
from .gene_text import GeneText
from .sections import Section

_PACKAGES = ("torch", "lightning", "timm", "numpy", "anndata")


def of_section(section: Section) -> str:
    """SHA-256 over labels, positions, pixels and features of a section."""
    digest = hashlib.sha256(section.name.encode())
    tensors = [section.labels, section.positions, section.patches, section.statistics, section.mask]
    if section.ready is not None:
        tensors += [section.ready.neighbors, section.ready.own]
    for tensor in tensors:
        digest.update(str(tuple(tensor.shape)).encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def of_panel(panel: Panel) -> str:
    """SHA-256 over the symbols, in order."""
    return hashlib.sha256("\n".join(panel.symbols).encode()).hexdigest()


def of_text(text: GeneText) -> str:
    """SHA-256 over the features."""
    return hashlib.sha256(text.features.contiguous().numpy().tobytes()).hexdigest()


def provenance(command: str) -> dict[str, Any]:
    """Versions, machine, date and command; the command must not hold private paths."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {
        "command": command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "napari_dkan": __version__,
        "python": sys.version.split()[0],
        "packages": {name: _version(name) for name in _PACKAGES},
        "machine": f"{platform.system()} {platform.machine()}",
        "device": device,
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"
