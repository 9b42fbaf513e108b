"""Ways to damage a file: bytes of it, its JSON, and the tree of an HDF5 file.

Everything is a hypothesis strategy of functions from a good file's bytes to a bad one's, so that
a case that fails is shrunk to the smallest damage that still fails.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
from hypothesis import strategies as st

Damage = Callable[[bytes], bytes]

# Where formats keep counts, offsets and lengths, these values go wrong.
NUMBERS = (0, 1, 2, 127, 255, 256, 65_535, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)
TEXTS = (
    "",
    "nan",
    "-1",
    "1e999",
    "../../etc/passwd",
    "\x00",
    "\u202e",
    "__import__('os')",
    "ä" * 99,
)

scalars: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(NUMBERS),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from(TEXTS),
    st.booleans(),
    st.none(),
)
trees = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(TEXTS), inner, max_size=3)
    ),
    max_leaves=6,
)


KINDS = ("flip", "number", "cut", "drop", "repeat", "insert")
ZONES = ("head", "head", "anywhere", "tail")
WOUND = st.binary(min_size=9, max_size=9)  # one draw, as each costs more than reading a file


def _wound(told: bytes) -> Damage:
    """Half of the wounds are near the start, where headers are, and some at the very end."""
    kind, zone = KINDS[told[0] % len(KINDS)], ZONES[told[1] % len(ZONES)]
    value, width = NUMBERS[told[2] % len(NUMBERS)], (1, 2, 4, 8)[told[3] % 4]
    amount, bits = 1 + told[4] % 64, 1 + told[5] % 255
    place = int.from_bytes(told[6:], "big")

    def damage(data: bytes) -> bytes:
        if not data:
            return data
        span = {"head": min(len(data), 600), "anywhere": len(data), "tail": min(len(data), 300)}
        at = place % span[zone] + (len(data) - span["tail"] if zone == "tail" else 0)
        if kind == "flip":
            return data[:at] + bytes([data[at] ^ bits]) + data[at + 1 :]
        if kind == "number":
            little = (value % 256**width).to_bytes(width, "little")
            return data[:at] + little + data[at + width :]
        if kind == "cut":
            return data[:at]
        if kind == "drop":
            return data[:at] + data[at + amount :]
        if kind == "repeat":
            return data[:at] + data[at : at + amount] * 3 + data[at + amount :]
        return data[:at] + bytes([bits]) * amount + data[at:]

    return damage


def wounds() -> st.SearchStrategy[Damage]:
    """One to four wounds to the bytes."""
    return st.lists(WOUND, min_size=1, max_size=4).map(_wounds)


def _wounds(told: list[bytes]) -> Damage:
    def damage(data: bytes) -> bytes:
        for one in told:
            data = _wound(one)(data)
        return data

    return damage


def _places(node: Any) -> list[tuple[Any, ...]]:
    """The path to each value of a JSON tree, the root's first."""
    found: list[tuple[Any, ...]] = []

    def visit(node: Any, path: tuple[Any, ...]) -> None:
        found.append(path)
        if isinstance(node, dict):
            for key, inner in node.items():
                visit(inner, (*path, key))
        elif isinstance(node, list):
            for index, inner in enumerate(node[:12]):
                visit(inner, (*path, index))

    visit(node, ())
    return found


@st.composite
def json_edits(draw: st.DrawFn) -> Damage:
    """Values of a JSON text replaced, removed or doubled, wherever they stand in its tree."""
    edits = draw(
        st.lists(
            st.tuples(
                st.integers(0, 2**20),
                st.sampled_from(("set", "set", "pop", "wrap", "times")),
                trees,
            ),
            min_size=1,
            max_size=3,
        )
    )

    def damage(data: bytes) -> bytes:
        document = json.loads(data)
        for index, kind, value in edits:
            places = _places(document)
            *parents, last = places[index % len(places)] or (None,)
            if last is None:
                document = value if kind == "set" else [document]
                continue
            node = document
            for key in parents:
                node = node[key]
            if kind == "pop":
                del node[last]
            elif kind == "wrap":
                node[last] = [node[last]]
            elif kind == "times" and isinstance(node[last], list | str):
                node[last] = node[last] * 50
            else:
                node[last] = value
        return json.dumps(document).encode()

    return damage


ARRAYS = (
    np.array([], np.float32),
    np.array([1, -1, 2**31 - 1], np.int64),
    np.array([[np.nan, np.inf], [1, 2]]),
    np.array([b"a", b"\xff\xfe"]),
    np.float64("nan"),
    np.int64(2**62),
    np.zeros((2, 2, 2), np.complex64),
    np.array([True, False]),
)


@st.composite
def hdf5_edits(draw: st.DrawFn) -> Damage:
    """Members and attributes of an HDF5 file removed, replaced, made huge, or linked elsewhere."""
    edits = draw(
        st.lists(
            st.tuples(
                st.integers(0, 2**20),
                st.sampled_from(("pop", "array", "huge", "link", "attribute", "lose", "swap")),
                st.integers(0, 2**20),
                scalars.filter(lambda v: v is not None and not (isinstance(v, int) and v > 2**62)),
            ),
            min_size=1,
            max_size=3,
        )
    )

    def damage(data: bytes) -> bytes:
        stream = io.BytesIO(data)
        with h5py.File(stream, "r+") as file:
            for index, kind, other, value in edits:
                names: list[str] = []
                file.visit(names.append)
                if names:
                    _edit(
                        file,
                        names[index % len(names)],
                        kind,
                        names[other % len(names)],
                        other,
                        value,
                    )
        return stream.getvalue()

    return damage


def _edit(file: h5py.File, name: str, kind: str, twin: str, number: int, value: Any) -> None:
    attributes = file[name].attrs if name in file else file.attrs
    if kind == "attribute" or kind == "lose":
        keys = sorted(attributes)
        if keys and kind == "lose":
            del attributes[keys[number % len(keys)]]
        elif keys and not (isinstance(value, int) and abs(value) >= 2**63):
            attributes[keys[number % len(keys)]] = "" if value == "\x00" else value
        return
    kept = dict(attributes)
    del file[name]
    if kind == "array":
        file[name] = ARRAYS[number % len(ARRAYS)]
    elif kind == "huge":  # claims terabytes, of which none is in the file
        shape = ((10**9, 250), (2**40,), (10**12, 2))[number % 3]
        file.create_dataset(name, shape, "f4", chunks=(1,) * (len(shape) - 1) + (2,))
    elif kind == "link":
        file[name] = h5py.SoftLink("/" + name if number % 2 else "/nowhere")
    elif kind == "swap" and twin in file:
        file[name] = file[twin]
        return
    if name in file and isinstance(file.get(name, getlink=True), h5py.HardLink):
        file[name].attrs.update(kept)
