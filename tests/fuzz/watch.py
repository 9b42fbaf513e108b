"""Watch a loader while it reads a file, for actions that are forbidden."""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

SECONDS = 20  # a hang, not a slow machine
ROOM = 3 * 2**30  # bytes of address space beyond what is in use before a case

_FORBIDDEN = (
    "socket.connect",
    "socket.bind",
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.fork",
    "os.posix_spawn",
    "pickle.find_class",
    "marshal.loads",
    "ctypes.dlopen",
    "os.remove",
    "os.rename",
    "os.mkdir",
    "shutil.rmtree",
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_seen: list[str] | None = None


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _seen is None:
        return
    if event == "subprocess.Popen" and "napari_dkan.hdf5_validation" in arguments[1]:
        return  # HDF5 files are read by a process of their own first
    if event in _FORBIDDEN:
        # Modules that are imported late come by these.
        if event in ("marshal.loads", "ctypes.dlopen") and _importing():
            return
        _seen.append(f"{event} {arguments!r:.200}")
    elif event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING:
        if arguments[0] == os.devnull or isinstance(arguments[0], int):
            return  # the pipes to that process
        _seen.append(f"opened {arguments[0]!r} for writing")
    elif event == "exec" and isinstance(arguments[0], CodeType):
        file = arguments[0].co_filename
        if not os.path.exists(file) and not file.startswith("<frozen") and not _importing():
            _seen.append(f"executed {file}")


def _importing() -> bool:
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if "importlib" in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False


sys.addaudithook(_hook)


class Hung(BaseException):
    """No Exception: loaders make a sentence of every one, as if the file were refused."""


def _too_long(signal_number: int, frame: FrameType | None) -> None:
    raise Hung(f"still reading after {SECONDS} s")


@contextmanager
def watched() -> Iterator[None]:
    """Hung where the block hangs; AssertionError where it writes, connects, starts a process or
    runs code; MemoryError where it asks for more than 3 GB."""
    global _seen
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_in_use() + ROOM, before[1]))
    handler = signal.signal(signal.SIGALRM, _too_long)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    seen = _seen = []
    try:
        yield
    finally:
        _seen = None
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert not seen, "; ".join(seen)


def _in_use() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def resident() -> int:
    """Bytes of memory held now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
