"""Hashes of the inputs of a run, and the versions, machine and command that made a result."""

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
from .data.prepared_section import PreparedSection
from .gene_text import GeneTextFeatures

_PACKAGES = ("torch", "lightning", "timm", "numpy", "anndata")


def hash_section(section: PreparedSection) -> str:
    """Compute the SHA-256 of labels, positions, pixels and features of a section."""
    digest = hashlib.sha256(section.name.encode())
    tensors = [section.labels, section.positions, section.patches, section.statistics, section.mask]
    if section.frozen_features is not None:
        tensors += [
            section.frozen_features.neighbor_features,
            section.frozen_features.target_features,
        ]
    for tensor in tensors:
        digest.update(str(tuple(tensor.shape)).encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def hash_panel(panel: Panel) -> str:
    """Compute the SHA-256 of the symbols, in order."""
    return hashlib.sha256("\n".join(panel.symbols).encode()).hexdigest()


def hash_gene_text(text: GeneTextFeatures) -> str:
    """Compute the SHA-256 of the features."""
    return hashlib.sha256(text.features.contiguous().numpy().tobytes()).hexdigest()


def collect_provenance(command: str, device: str | None = None) -> dict[str, Any]:
    """Collect versions, machine, date and command; the command must not hold private paths.

    `device` names what computed; None for the first GPU, or the CPU of a machine without one.
    """
    if device is None:
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {
        "command": command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "napari_dkan": __version__,
        "python": sys.version.split()[0],
        "packages": {name: _package_version(name) for name in _PACKAGES},
        "machine": f"{platform.system()} {platform.machine()}",
        "device": device,
    }


def _package_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"
