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
FLOAT_DTYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_SUPPORTED_DTYPES = {**FLOAT_DTYPES, "I64": 8}
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
    """What a safetensors file says about itself: text metadata and (dtype, shape) by name."""

    metadata: dict[str, str]
    tensors: dict[str, tuple[str, tuple[int, ...]]]


def read_safetensors_header(path: Path) -> SafetensorsHeader:
    """Read and check the header only; no tensor is touched and nothing large is allocated.

    Raises CheckpointError when the file is absent, empty, truncated or of another kind.
    """
    try:
        if path.is_dir():
            raise CheckpointError("it is a folder; choose the .safetensors file itself")
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(9)
            length = int.from_bytes(start[:8], "little")
            text = (
                start[8:] + file.read(min(length, MAX_HEADER_BYTES) - 1) if len(start) == 9 else b""
            )
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
        counted = all(type(side) is int for _, shape in tensors.values() for side in shape)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        raise CheckpointError("its header is damaged; download it again") from None
    if not counted or not isinstance(metadata, dict):
        raise CheckpointError("its header is damaged; download it again")
    if size < 8 + length + end:
        raise CheckpointError("the file is truncated; download it again")
    for name, (dtype, _) in tensors.items():
        if dtype not in _SUPPORTED_DTYPES:
            raise CheckpointError(f"its tensor {name:.80} is of type {dtype:.20}, not a float")
    return SafetensorsHeader({str(k): str(v) for k, v in metadata.items()}, tensors)


def read_safetensors(path: Path, names: list[str]) -> dict[str, Tensor]:
    """The named tensors in memory of their own; floats as float32, all values finite.

    Raises CheckpointError when the file is damaged or a value is not finite.
    """
    out: dict[str, Tensor] = {}
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            for name in names:
                tensor = file.get_tensor(name)
                # Copied out of the memory map, so that the file may be replaced afterwards.
                out[name] = (
                    tensor.to(torch.float32, copy=True)
                    if tensor.is_floating_point()
                    else tensor.clone()
                )
    except (SafetensorError, OSError):
        raise CheckpointError("the file is damaged; download it again") from None
    except (MemoryError, RuntimeError):
        raise CheckpointError("its tensors do not fit into memory") from None
    require_finite(out)
    return out


def require_finite(tensors: Mapping[str, Tensor]) -> None:
    """Raises CheckpointError naming the first tensor with a value that is not finite."""
    for name, tensor in tensors.items():
        # A sum is finite unless a value is not, or values near the limit of float32 add up.
        if not torch.isfinite(tensor.sum()) and not torch.isfinite(tensor).all():
            raise CheckpointError(f"its tensor {name:.80} holds values that are not finite")


def write_safetensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str], half: bool
) -> None:
    """Write atomically; with half, matrices are stored as float16 where they fit.

    Vectors (biases, norms, running statistics) stay float32. Raises OutputError
    when the folder or the disk does not take the file; no part of it is left.
    """
    stored = {n: _prepare_for_saving(t.detach().cpu(), half) for n, t in tensors.items()}
    with atomic_write(path) as temporary:
        try:
            save_file(stored, temporary, metadata)
        except SafetensorError as error:
            full = "No space left" in str(error)
            raise OSError("the disk is full" if full else str(error)[:200]) from None


def parse_strict_json(text: str) -> Any:
    """JSON without the not-a-number literals; CheckpointError when it is none."""

    def refuse(literal: str) -> Any:
        raise ValueError(literal)

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        raise CheckpointError("its description is not valid JSON") from None


def _describe_file_type(start: bytes) -> str:
    for magic, what in _OTHER_FILE_TYPES.items():
        if start.startswith(magic):
            return f"it {what}"
    return "it is not a safetensors file"


def _prepare_for_saving(tensor: Tensor, half: bool) -> Tensor:
    tensor = tensor.clone(memory_format=torch.contiguous_format)  # views may share memory
    if half and tensor.is_floating_point() and tensor.ndim > 1:
        small = tensor.half()
        return small if torch.isfinite(small).all() else tensor
    return tensor


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
