"""Reading what a file says, one entry at a time, each of the kind it must be."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Damaged(Exception):
    """What is wrong with a file, as half a sentence."""


def json_object(text: Any) -> dict[str, Any]:
    """Raises Damaged when the text is JSON but no object, ValueError when it is no JSON."""
    told = json.loads(text)
    if not isinstance(told, dict):
        raise Damaged("what it says about itself is no JSON object")
    return told


def entry(told: Any, key: str, kind: type) -> Any:
    """Raises Damaged unless the entry is there and of this kind; a bool is no int."""
    value = told.get(key) if isinstance(told, dict) else None
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise Damaged(f"its entry {key} is no {kind.__name__}")
    return value


def texts(told: Any, key: str) -> list[str]:
    found = entry(told, key, list)
    if not all(isinstance(text, str) for text in found):
        raise Damaged(f"its entry {key} is no list of texts")
    return found


def number(told: Any, key: str) -> float:
    """A finite one."""
    value = told.get(key) if isinstance(told, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise Damaged(f"its entry {key} is no number")
    return float(value)


def maybe(told: dict[str, Any], key: str) -> float | None:
    return None if told.get(key) is None else number(told, key)


def pair(told: dict[str, Any], key: str) -> tuple[float, float] | None:
    if told.get(key) is None:
        return None
    found = entry(told, key, list)
    if len(found) != 2:
        raise Damaged(f"its entry {key} is no pair of numbers")
    return number({key: found[0]}, key), number({key: found[1]}, key)


def array(item: Any, dtype: Any, shape: tuple[int, int | None]) -> NDArray[Any]:
    """An HDF5 dataset of exactly this type and shape; None in the shape is any width.

    Raises Damaged.
    """
    stored = getattr(item, "shape", None)
    wide = shape[1] if shape[1] is not None else (stored or (0,))[-1]
    if stored != (shape[0], wide) or item.dtype != dtype:
        raise Damaged(f"{item.name} is not {dtype.__name__} of shape {(shape[0], wide)}")
    return np.asarray(item[()], dtype)
