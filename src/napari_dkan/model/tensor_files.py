"""Read and write safetensors files and read PyTorch files, without executing their content."""

from __future__ import annotations

import argparse
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..atomic_write import atomic_write
from ..errors import CheckpointError


def read_safetensors(path: Path, names: list[str]) -> dict[str, Tensor]:
    """Read tensors into memory; floats become float32, all values are finite.

    Raises CheckpointError if the file is damaged or a value is not finite.
    """
    tensors: dict[str, Tensor] = {}
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            for name in names:
                tensor = file.get_tensor(name)
                # Copied out of the memory map, so that the file can be replaced afterwards.
                tensors[name] = (
                    tensor.to(torch.float32, copy=True)
                    if tensor.is_floating_point()
                    else tensor.clone()
                )
    except (SafetensorError, OSError):
        raise CheckpointError("the file is damaged; download it again") from None
    except (MemoryError, RuntimeError):
        raise CheckpointError("its tensors do not fit into memory") from None
    require_finite(tensors)
    return tensors


def require_finite(tensors: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError with the first tensor that has a value that is not finite."""
    for name, tensor in tensors.items():
        # The sum is fast and finite unless a value is not, or values near the limit of float32
        # add up.
        if not torch.isfinite(tensor.sum()) and not torch.isfinite(tensor).all():
            raise CheckpointError(f"its tensor {name:.80} holds values that are not finite")


def write_safetensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str], half: bool
) -> None:
    """Write a safetensors file atomically.

    Parameters
    ----------
    half
        Whether to store matrices as float16 if their values fit. Vectors (biases, norms, running
        statistics) stay float32.

    Raises
    ------
    OutputError
        If the file cannot be written; no part of it remains.
    """
    stored = {n: _prepare_for_saving(t.detach().cpu(), half) for n, t in tensors.items()}
    with atomic_write(path) as temporary:
        try:
            save_file(stored, temporary, metadata)
        except SafetensorError as error:
            full = "No space left" in str(error)
            raise OSError("the disk is full" if full else str(error)[:200]) from None


def _prepare_for_saving(tensor: Tensor, half: bool) -> Tensor:
    tensor = tensor.clone(memory_format=torch.contiguous_format)  # views may share memory
    if half and tensor.is_floating_point() and tensor.ndim > 1:
        rounded = tensor.half()
        return rounded if torch.isfinite(rounded).all() else tensor
    return tensor


def read_torch_file(path: Path) -> Any:
    """Read a `.pt`, `.pth` or `.ckpt` file: tensors, containers and plain values.

    Besides what `torch.load(weights_only=True)` allows, an argparse Namespace (of
    hyper-parameters) is allowed.

    Raises
    ------
    CheckpointError
        If the file needs more, is damaged, or claims to unpack to more than its size.
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
            unpacked_size = sum(entry.file_size for entry in archive.infolist())
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise CheckpointError(f"{path} cannot be read ({str(error)[:100]}).") from None
    # PyTorch stores its entries uncompressed, so no valid file unpacks to more than its size.
    if unpacked_size > path.stat().st_size:
        raise CheckpointError(
            f"{path} claims to unpack to {unpacked_size:,} bytes, more than it holds; "
            "it is not opened."
        )
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise any error
        if "weights_only" in str(error).lower() or "unsupported" in str(error).lower():
            raise CheckpointError(
                f"{path} holds more than tensors and plain values, and opening it could run code; "
                "save its weights and hyper-parameters only."
            ) from None
        raise CheckpointError(f"{path} is damaged; get it again.") from None


def require_within_file_size(path: Path, tensors: Iterable[Tensor]) -> None:
    """Raise CheckpointError if tensors are larger than their file, as strides of zero allow."""
    if sum(t.numel() * t.element_size() for t in tensors) > path.stat().st_size:
        raise CheckpointError(f"{path} states tensors larger than itself; it is not used.")
