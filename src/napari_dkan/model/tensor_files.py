"""Read and write safetensors files and read PyTorch files, without executing their content."""

from __future__ import annotations

import argparse
import json
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..atomic_write import atomic_write
from ..errors import CheckpointError

MAX_HEADER_BYTES = 64 * 2**20
FLOAT_DTYPES = frozenset({"F64", "F32", "F16", "BF16"})
_SUPPORTED_DTYPES = FLOAT_DTYPES | {"I64"}
_CONVERT_HINT = "if it is a published checkpoint, import it with `napari-dkan convert`"
_OTHER_FILE_TYPES = {
    b"PK\x03\x04": f"is a PyTorch file or another zip archive; {_CONVERT_HINT}",
    b"\x80": f"is a Python pickle, which is never opened; {_CONVERT_HINT}",
    b"\x89HDF": "is an HDF5 file",
    b"\x93NUMPY": "is a NumPy array",
    b"\x1f\x8b": "is a gzip archive",
    b"II*\x00": "is a TIFF image",
    b"MM\x00*": "is a TIFF image",
    b"\x89PNG": "is a PNG image",
    b"\xff\xd8": "is a JPEG image",
}


@dataclass(frozen=True)
class SafetensorsHeader:
    """Header of a safetensors file: text metadata, and (dtype, shape) of each tensor by name."""

    metadata: dict[str, str]
    tensors: dict[str, tuple[str, tuple[int, ...]]]


def read_safetensors_header(path: Path) -> SafetensorsHeader:
    """Read and validate the header only; no tensor is read and nothing large is allocated.

    Raises CheckpointError if the file is absent, empty, truncated or of another kind.
    """
    try:
        if path.is_dir():
            raise CheckpointError("it is a folder; choose the .safetensors file itself")
        size, text = path.stat().st_size, b""
        with path.open("rb") as file:
            start = file.read(9)
            length = int.from_bytes(start[:8], "little")
            if len(start) == 9:
                text = start[8:] + file.read(min(length, MAX_HEADER_BYTES) - 1)
    except FileNotFoundError:
        raise CheckpointError("there is no such file") from None
    except OSError as error:
        raise CheckpointError(f"it cannot be read ({error.strerror or error})") from None
    if size == 0:
        raise CheckpointError("the file is empty; download or save it again")
    if start[8:] != b"{" or length > MAX_HEADER_BYTES:
        raise CheckpointError(_describe_file_type(start))
    if len(text) < length:
        raise CheckpointError("the file is truncated; download it again")
    try:
        header = json.loads(text)
        metadata = header.pop("__metadata__", {})
        tensors = {str(n): (str(t["dtype"]), tuple(t["shape"])) for n, t in header.items()}
        end = max((int(t["data_offsets"][1]) for t in header.values()), default=0)
        valid = all(type(side) is int for _, shape in tensors.values() for side in shape)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        raise CheckpointError("its header is damaged; download it again") from None
    if not valid or not isinstance(metadata, dict):
        raise CheckpointError("its header is damaged; download it again")
    if size < 8 + length + end:
        raise CheckpointError("the file is truncated; download it again")
    for name, (dtype, _) in tensors.items():
        if dtype not in _SUPPORTED_DTYPES:
            raise CheckpointError(f"its tensor {name:.80} is of type {dtype:.20}, not a float")
    return SafetensorsHeader({str(k): str(v) for k, v in metadata.items()}, tensors)


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


def parse_strict_json(text: str) -> Any:
    """Parse JSON without NaN and infinities; raises CheckpointError if it is not valid."""

    def refuse(literal: str) -> Any:
        raise ValueError(literal)

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        raise CheckpointError("its description is not valid JSON") from None


def _describe_file_type(start: bytes) -> str:
    for magic, description in _OTHER_FILE_TYPES.items():
        if start.startswith(magic):
            return f"it {description}"
    return "it is not a safetensors file"


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
