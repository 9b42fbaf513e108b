"""Reading what a file says, one entry at a time, each of the kind it must be."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray


class DamagedResultError(Exception):
    """What is wrong with a file, as half a sentence."""


def parse_json_object(text: Any) -> dict[str, Any]:
    """Raises Damaged when the text is JSON but no object, ValueError when it is no JSON."""
    told = json.loads(text)
    if not isinstance(told, dict):
        raise DamagedResultError("what it says about itself is no JSON object")
    return told


def get_entry(document: Any, key: str, kind: type) -> Any:
    """Raises Damaged unless the entry is there and of this kind; a bool is no int."""
    value = document.get(key) if isinstance(document, dict) else None
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise DamagedResultError(f"its entry {key} is no {kind.__name__}")
    return value


def get_strings(document: Any, key: str) -> list[str]:
    found = get_entry(document, key, list)
    if not all(isinstance(text, str) for text in found):
        raise DamagedResultError(f"its entry {key} is no list of texts")
    return found


def get_number(document: Any, key: str) -> float:
    """A finite one."""
    value = document.get(key) if isinstance(document, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise DamagedResultError(f"its entry {key} is no number")
    return float(value)


def get_optional_number(document: dict[str, Any], key: str) -> float | None:
    return None if document.get(key) is None else get_number(document, key)


def get_number_pair(document: dict[str, Any], key: str) -> tuple[float, float] | None:
    if document.get(key) is None:
        return None
    found = get_entry(document, key, list)
    if len(found) != 2:
        raise DamagedResultError(f"its entry {key} is no pair of numbers")
    return get_number({key: found[0]}, key), get_number({key: found[1]}, key)


def read_array(dataset: Any, dtype: Any, shape: tuple[int, int | None]) -> NDArray[Any]:
    """An HDF5 dataset of exactly this type and shape; None in the shape is any width.

    Raises Damaged.
    """
    stored = getattr(dataset, "shape", None)
    wide = shape[1] if shape[1] is not None else (stored or (0,))[-1]
    if stored != (shape[0], wide) or dataset.dtype != dtype:
        raise DamagedResultError(f"{dataset.name} is not {dtype.__name__} of shape {(shape[0], wide)}")
    return np.asarray(dataset[()], dtype)
