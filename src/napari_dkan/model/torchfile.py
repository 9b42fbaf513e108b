"""Reading PyTorch files of others without running anything that is in them."""

from __future__ import annotations

import argparse
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError


def read_torch_file(path: Path) -> Any:
    """The content of a `.pt`, `.pth` or `.ckpt` file: tensors, containers and plain values.

    Only what `torch.load(weights_only=True)` admits, and an argparse Namespace (a
    bare holder of hyper-parameters). Raises CheckpointError when the file asks for more,
    is damaged, or claims to unpack to more than it holds.
    """
    try:
        if not path.is_file():
            raise CheckpointError(f"{path} is not a file.")
        if not zipfile.is_zipfile(path):
            raise CheckpointError(
                f"{path} is not a PyTorch file of version 1.6 or newer; if it is an older one, "
                "load it in PyTorch where you trust it and save it again."
            )
        with zipfile.ZipFile(path) as archive:
            claimed = sum(entry.file_size for entry in archive.infolist())
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise CheckpointError(f"{path} cannot be read ({str(error)[:100]}).") from None
    # PyTorch stores its entries uncompressed, so no honest file unpacks to more than itself.
    if claimed > path.stat().st_size:
        raise CheckpointError(
            f"{path} claims to unpack to {claimed:,} bytes, more than it holds; it is not opened."
        )
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises whatever its damage leads to
        if "weights_only" in str(error).lower() or "unsupported" in str(error).lower():
            raise CheckpointError(
                f"{path} holds more than tensors and plain values, and opening it could run code; "
                "save its weights and hyper-parameters only."
            ) from None
        raise CheckpointError(f"{path} is damaged; get it again.") from None


def require_within_file_size(path: Path, tensors: Iterable[Tensor]) -> None:
    """Refuse tensors that together are larger than their file, as repeated strides allow.

    Raises CheckpointError.
    """
    if sum(t.numel() * t.element_size() for t in tensors) > path.stat().st_size:
        raise CheckpointError(f"{path} states tensors larger than itself; it is not used.")
