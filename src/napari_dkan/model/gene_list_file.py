"""Read gene lists of published data sets without executing pickled content."""

from __future__ import annotations

import math
import pickletools
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CheckpointError

_MAX_FILE_BYTES = 64 * 2**20
_NPY_MAGIC = b"\x93NUMPY"

# Names that a pickled array of strings refers to. None of them is imported or called.
_NUMPY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
_ALLOWED_GLOBALS = {
    *((module, name) for module in _NUMPY_MODULES for name in ("_reconstruct", "scalar")),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}
_VALUE_OPCODES = {
    *("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE"),
    *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "SHORT_BINSTRING", "BINSTRING", "STRING"),
    *("BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1"),
}
_CONSTANT_OPCODES = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLE_OPCODES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()


@dataclass
class _PickledCall:
    """A call that a pickle asks for: function, arguments and state. It is not executed."""

    function: Any
    arguments: Any
    state: Any = None


def read_gene_list(path: Path) -> list[str]:
    """Read gene symbols from a `.npy` array of strings or objects, or a text file with one a line.

    An object array is a pickle; it is interpreted opcode by opcode as data, and nothing is
    called. Raises CheckpointError if it holds anything but strings.
    """
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise CheckpointError(f"{path} is too large for a list of genes.")
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror or error}).") from None
    try:
        genes = _parse_npy(path, data) if data.startswith(_NPY_MAGIC) else data.decode().split("\n")
    except UnicodeDecodeError:
        raise CheckpointError(
            f"{path} is no list of genes; give a .npy array or a text file with one gene a line."
        ) from None
    genes = [g.strip() for g in genes if g.strip()]
    invalid = [g for g in genes if len(g) > 100 or not g.isprintable()]
    if invalid or not genes:
        raise CheckpointError(f"{path} holds {'text that is' if invalid else ''} no gene symbols.")
    return genes


def _parse_npy(path: Path, data: bytes) -> list[str]:
    file = BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, _, dtype = read_header(file)
    except Exception:  # numpy also raises errors of Python's tokenizer and parser
        raise CheckpointError(f"{path} has a damaged NumPy header; get it again.") from None
    body = data[file.tell() :]
    if dtype.hasobject:
        items = _parse_object_array(path, body)
    elif dtype.kind in "US" and len(body) == math.prod(shape) * dtype.itemsize:
        items = np.frombuffer(body, dtype).astype(str).tolist()
    else:
        raise CheckpointError(f"{path} is not a NumPy array of gene symbols.")
    if len(shape) != 1 or shape[0] != len(items):
        raise CheckpointError(f"{path} is not a plain list of gene symbols.")
    return items


def _parse_object_array(path: Path, pickle: bytes) -> list[str]:
    """The strings of a pickled one-dimensional object array."""
    try:
        array = _interpret_pickle(pickle)
        if array.function[1] != "_reconstruct" or not isinstance(array.state[4], list):
            raise ValueError("not an array")
        return [_decode_string(item) for item in array.state[4]]
    except _ForbiddenPickleError as error:
        raise CheckpointError(
            f"{path} asks for {error} besides gene symbols, and opening it could run code; "
            "give a text file with one gene a line."
        ) from None
    except Exception:  # a damaged pickle can raise any error
        raise CheckpointError(
            f"{path} is not an array of gene symbols; give a text file with one gene a line."
        ) from None


class _ForbiddenPickleError(Exception):
    """A pickle asks for something that an array of strings does not need."""


def _interpret_pickle(pickle: bytes) -> Any:
    """Run the pickle's stack machine on data only: calls become `_PickledCall` records."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def pop_to_mark() -> list[Any]:
        start = max(i for i, item in enumerate(stack) if item is _MARK)
        items = stack[start + 1 :]
        del stack[start:]
        return items

    argument: Any
    for opcode, argument, _ in pickletools.genops(pickle):
        name = opcode.name
        if name in _VALUE_OPCODES:
            stack.append(argument)
        elif name in _CONSTANT_OPCODES:
            stack.append(_CONSTANT_OPCODES[name])
        elif name in _TUPLE_OPCODES:
            stack[-_TUPLE_OPCODES[name] :] = [tuple(stack[-_TUPLE_OPCODES[name] :])]
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "TUPLE":
            stack.append(tuple(pop_to_mark()))
        elif name in ("EMPTY_LIST", "LIST"):
            stack.append([] if name == "EMPTY_LIST" else pop_to_mark())
        elif name == "APPENDS":
            items = pop_to_mark()
            stack[-1].extend(items)
        elif name == "APPEND":
            item = stack.pop()
            stack[-1].append(item)
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            memo[int(argument)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo[int(argument)])
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            stack.append(_parse_global(argument, stack))
        elif name == "REDUCE":
            arguments = stack.pop()
            stack.append(_PickledCall(stack.pop(), arguments))
        elif name == "BUILD":
            state = stack.pop()
            stack[-1].state = state
        elif name == "STOP":
            return stack.pop()
        elif name not in ("PROTO", "FRAME"):
            raise _ForbiddenPickleError(f"a pickle operation ({name})")
    raise ValueError("no end")


def _parse_global(argument: Any, stack: list[Any]) -> tuple[str, str]:
    if argument is None:
        name, module = stack.pop(), stack.pop()
    else:
        module, name = str(argument).split(" ", 1)
    if (module, name) not in _ALLOWED_GLOBALS:
        raise _ForbiddenPickleError(f"{module}.{name}"[:100])
    return module, name


def _decode_string(item: Any) -> str:
    if isinstance(item, str):
        return item
    # A numpy.str_: scalar(dtype("<U5"), UTF-32 bytes)
    if isinstance(item, _PickledCall) and item.function[1] == "scalar":
        dtype, content = item.arguments
        if isinstance(content, _PickledCall) and content.function[1] == "encode":
            content = content.arguments[0].encode("latin-1")  # bytes in protocol 2
        if dtype.arguments[0].startswith("U"):
            encoding = "utf-32-be" if dtype.state[1] == ">" else "utf-32-le"
            return str(content.decode(encoding)).rstrip("\0")
    raise ValueError("not a string")
