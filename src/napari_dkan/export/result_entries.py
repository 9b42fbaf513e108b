"""Entries of a result file, JSON or HDF5, each checked for its type."""

from __future__ import annotations

import json
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

ValueT = TypeVar("ValueT")


class DamagedResultError(Exception):
    """The damage of a file, as half a sentence."""


def parse_json_object(text: Any) -> dict[str, Any]:
    """Parse a JSON object.

    Raises
    ------
    DamagedResultError
        When the text is JSON but not an object.
    ValueError
        When it is not JSON.
    """
    document = json.loads(text)
    if not isinstance(document, dict):
        raise DamagedResultError("what it says about itself is no JSON object")
    return document


def get_entry(document: Any, key: str, kind: type[ValueT]) -> ValueT:
    """Get an entry of a type; a bool is not an int.

    Raises
    ------
    DamagedResultError
        When the entry is missing or of another type.
    """
    value = document.get(key) if isinstance(document, dict) else None
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise DamagedResultError(f"its entry {key} is no {kind.__name__}")
    return value


def get_strings(document: Any, key: str) -> list[str]:
    """Get a list of strings, as `get_entry`."""
    texts: list[str] = get_entry(document, key, list)
    if not all(isinstance(text, str) for text in texts):
        raise DamagedResultError(f"its entry {key} is no list of texts")
    return texts


def get_number(document: Any, key: str) -> float:
    """Get a finite number, as `get_entry`."""
    value = document.get(key) if isinstance(document, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise DamagedResultError(f"its entry {key} is no number")
    return float(value)


def get_optional_number(document: dict[str, Any], key: str) -> float | None:
    """Get a finite number, None where the entry is null or missing."""
    return None if document.get(key) is None else get_number(document, key)


def get_number_pair(document: dict[str, Any], key: str) -> tuple[float, float] | None:
    """Get two finite numbers, None where the entry is null or missing."""
    if document.get(key) is None:
        return None
    pair = get_entry(document, key, list)
    if len(pair) != 2:
        raise DamagedResultError(f"its entry {key} is no pair of numbers")
    return get_number({key: pair[0]}, key), get_number({key: pair[1]}, key)


def read_array(dataset: Any, dtype: Any, shape: tuple[int, int | None]) -> NDArray[Any]:
    """Read an HDF5 dataset of a dtype and shape; None in the shape is any width.

    Raises
    ------
    DamagedResultError
        When the dataset is of another dtype or shape.
    """
    stored = getattr(dataset, "shape", None)
    width = shape[1] if shape[1] is not None else (stored or (0,))[-1]
    if stored != (shape[0], width) or dataset.dtype != dtype:
        raise DamagedResultError(
            f"{dataset.name} is not {dtype.__name__} of shape {(shape[0], width)}"
        )
    return np.asarray(dataset[()], dtype)
