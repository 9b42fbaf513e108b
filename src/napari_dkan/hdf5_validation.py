"""Validate HDF5 files in a child process, as the HDF5 library crashes on some damaged files."""

from __future__ import annotations

import faulthandler
import json
import math
import os
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from .size_limits import ALWAYS_ALLOWED_BYTES, MAX_DEFLATE_RATIO, describe_excess_size

MAX_OBJECTS = 100_000  # in one file
_IDLE_TIMEOUT_S = 60.0  # the child ends itself after so long without a question
_ANSWER_TIMEOUT_S = (
    60.0  # and is ended when it takes longer than this, and a second for every 10 MB
)
_MAX_CACHED_RESULTS = 16  # answers
_CPU_LIMIT_S = 1.0  # of the processor, and a second for every 10 MB

_CRASH_REASON = "it is damaged so that the HDF5 library cannot survive reading it"


def validate_hdf5(path: str | Path) -> str:
    """Why an HDF5 file must not be read, as half a sentence; "" where nothing speaks against it.

    It must be whole, may not link to other files, nor hold arrays larger than what is stored of
    them can unpack to. Where no process can be started, the file is given the benefit of the doubt.
    """
    path = Path(path)
    try:
        status, whole = path.stat(), str(path.resolve())
    except OSError as error:
        return f"it cannot be read ({error.strerror or error})"
    key = (whole, status.st_ino, status.st_size, status.st_mtime_ns)
    with _lock:
        if (
            key in _cached_results
        ):  # one opening asks more than once: is it ours, then what is in it
            return _cached_results[key]
        answer = _query_child(whole, _ANSWER_TIMEOUT_S + status.st_size / 10e6)
        if answer != _CRASH_REASON:  # a child that was ended may have better luck next time
            _cached_results[key] = answer
            while len(_cached_results) > _MAX_CACHED_RESULTS:
                del _cached_results[next(iter(_cached_results))]
        return answer


# ---- this side ------------------------------------------------------------------------------

_lock = threading.Lock()
_child: subprocess.Popen[str] | None = None
_cached_results: dict[
    tuple[str, int, int, int], str
] = {}  # by path, inode, size and time of writing


def _query_child(path: str, timeout: float) -> str:
    global _child
    for _ in range(2):  # a child that went for being idle is replaced
        fresh = _child is None or _child.poll() is not None
        if fresh:
            try:
                _child = _start_child()
            except OSError:
                return ""
        assert _child is not None
        began = time.monotonic()
        answer = _exchange_message(_child, path, timeout)
        if answer:
            return str(json.loads(answer)["doubt"])
        took = time.monotonic() - began
        if fresh or _child.wait() < 0 or took > timeout / 2:  # one that was idle has just gone
            return _CRASH_REASON
    return _CRASH_REASON


def _start_child() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


def _exchange_message(child: subprocess.Popen[str], path: str, timeout: float) -> str:
    """The child's answer, "" when it is gone; it ends itself when it takes too long.

    A thread here that ended it might not start where memory is short, and Python waits for it.
    """
    assert child.stdin is not None and child.stdout is not None
    try:
        child.stdin.write(json.dumps([path, timeout]) + "\n")
        child.stdin.flush()
    except OSError:
        return ""
    return child.stdout.readline()


# ---- the child ------------------------------------------------------------------------------


def validate_in_process(path: str) -> str:
    """What `hdf5_doubt` answers, found in this process."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return _find_problem(file, os.path.getsize(path))
    except MemoryError:
        return "it asks for more memory than there is"
    except zlib.error:
        return "it is damaged"
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            return f"it cannot be read ({error.strerror})"
        return "it is damaged or no HDF5 file"


def _find_problem(file: Any, file_size: int) -> str:
    import h5py

    total = 0
    for count, item in enumerate(_iter_objects(file)):
        if item is None:
            return "it refers to other files"
        if count > MAX_OBJECTS:
            return "it holds too many objects"
        for name in item.attrs:
            item.attrs[name]
        if not isinstance(item, h5py.Dataset):
            continue
        if item.is_virtual or item.external:
            return "it refers to other files"
        total += item.nbytes
        size = max(item.nbytes, _chunk_bytes(item))
        if size > max(ALWAYS_ALLOWED_BYTES, MAX_DEFLATE_RATIO * item.id.get_storage_size()):
            return describe_excess_size(size)
        if item.compression == "gzip" and not _has_valid_chunk_sizes(item):
            return "a part of it unpacks to more than it says"
        if item.nbytes <= ALWAYS_ALLOWED_BYTES:  # a larger one is beyond its header only data
            item[()]
    return (
        describe_excess_size(total)
        if total > max(ALWAYS_ALLOWED_BYTES, MAX_DEFLATE_RATIO * file_size)
        else ""
    )


def _chunk_bytes(item: Any) -> int:
    """Of one chunk, 0 where there are none; a reference to a text takes 16 bytes on disk."""
    return math.prod(item.chunks or (0,)) * item.dtype.itemsize * (2 if item.dtype.hasobject else 1)


def _has_valid_chunk_sizes(item: Any) -> bool:
    """False for a bomb: HDF5 itself unpacks a chunk for as long as there is more of it."""
    for i in range(item.id.get_num_chunks()):
        place = item.id.get_chunk_info(i).chunk_offset
        skipped, packed = item.id.read_direct_chunk(place)
        if skipped:  # this chunk went without some of the filters
            continue
        unpack = zlib.decompressobj()
        unpack.decompress(packed, max(_chunk_bytes(item), 1))
        if unpack.unconsumed_tail and unpack.decompress(unpack.unconsumed_tail, 1):
            return False
    return True


def _iter_objects(root: Any) -> Iterator[Any]:
    """The root and every object below, each once; None for a link into another file."""
    import h5py

    yield root
    waiting, seen = [root], set()
    while waiting:
        current = waiting.pop()
        for name in current:
            link = current.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                yield None
                continue
            if not isinstance(link, h5py.HardLink):
                continue  # leads to a place in this file that is visited anyway, or nowhere
            item = current[name]
            address = h5py.h5o.get_info(item.id).addr
            if address in seen:
                continue
            seen.add(address)
            yield item
            if isinstance(item, h5py.Group):
                waiting.append(item)


def _serve_requests() -> None:
    """Answer one path a line until the other side is gone, or silent for a minute.

    The clock is faulthandler's, which ends this process whatever the HDF5 library is busy with.
    """
    import h5py  # noqa: F401  # its import is not the file's work

    while True:
        faulthandler.dump_traceback_later(_IDLE_TIMEOUT_S, exit=True)
        line = sys.stdin.readline()
        if not line:
            return
        path, patience = json.loads(line)
        faulthandler.dump_traceback_later(patience, exit=True)
        _limit_cpu_time(path)
        print(json.dumps({"doubt": validate_in_process(path)}), flush=True)


def _limit_cpu_time(path: str) -> None:
    """End this process when it computes for too long: HDF5 goes round in circles on some files.

    By the time of the processor, so that a busy machine makes no file suspicious.
    """
    with suppress(ImportError, OSError, ValueError):  # Windows: the other side's clock has to do
        import resource

        most = int(time.process_time() + _CPU_LIMIT_S + os.path.getsize(path) / 10e6) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (most, resource.getrlimit(resource.RLIMIT_CPU)[1]))


if __name__ == "__main__":
    _serve_requests()
