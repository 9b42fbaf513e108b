"""Read the header of a safetensors file; free of torch, so that a card is shown quickly."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CheckpointError

# Shapes are quoted in error messages; no tensor of a checkpoint comes near these.
MAX_DIMENSIONS = 8
MAX_SIDE = 2**48
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
        valid = all(
            len(shape) <= MAX_DIMENSIONS
            and all(type(side) is int and 0 <= side < MAX_SIDE for side in shape)
            for _, shape in tensors.values()
        )
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
