"""Validate HDF5 files in a child process, as the HDF5 library crashes on some damaged files.

The child is started with `subprocess` and not with `multiprocessing`: spawn would import the
``__main__`` of the host program again (a script without a guard would run twice, and napari may
be started from a notebook), and fork would copy its threads and Qt. A pool of workers is not
needed either: one child answers one question at a time and is replaced after a crash.
"""

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
MAX_CACHED_RESULTS = 16
# Timeouts of one file get a second more for every BYTES_PER_S of its size.
BYTES_PER_S = 10e6
ANSWER_TIMEOUT_S = 60.0
CPU_LIMIT_S = 1.0
IDLE_TIMEOUT_S = 60.0  # the child ends after this time without a question

CRASH_REASON = "it is damaged so that the HDF5 library cannot survive reading it"


def validate_hdf5(path: str | Path) -> str:
    """Check that an HDF5 file can be read safely.

    It must be complete, may not link to other files, and may not contain arrays larger than
    their stored bytes can unpack to. Where no process can be started, the file is accepted.

    Returns
    -------
    str
        Why the file must not be read, as half a sentence; "" if it may be read.
    """
    return _validator.validate(path)


# ---- parent ---------------------------------------------------------------------------------


class Hdf5Validator:
    """Sends paths to a child process and caches its answers; thread-safe.

    Attributes
    ----------
    answer_timeout_s
        Seconds for one file, and a second more for every 10 MB.
    cached_results
        Answers by path, inode, size and modification time.
    child
        The process, None before the first file.
    """

    def __init__(self, answer_timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        self.answer_timeout_s = answer_timeout_s
        self.cached_results: dict[tuple[str, int, int, int], str] = {}
        self.child: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def validate(self, path: str | Path) -> str:
        """Validate a file; see `validate_hdf5`."""
        path = Path(path)
        try:
            status, full_path = path.stat(), str(path.resolve())
        except OSError as error:
            return f"it cannot be read ({error.strerror or error})"
        key = (full_path, status.st_ino, status.st_size, status.st_mtime_ns)
        with self._lock:
            # Opening a file validates it more than once: to detect its format, then to read it.
            if key in self.cached_results:
                return self.cached_results[key]
            timeout = self.answer_timeout_s + status.st_size / BYTES_PER_S
            answer = self.query_child(full_path, timeout)
            if answer != CRASH_REASON:  # not cached: the next child may succeed
                self.cached_results[key] = answer
                while len(self.cached_results) > MAX_CACHED_RESULTS:
                    del self.cached_results[next(iter(self.cached_results))]
            return answer

    def query_child(self, path: str, timeout: float) -> str:
        """Let the child validate a file, in a new process where the last one has ended."""
        for _ in range(2):  # a child that ended while it was idle is replaced
            is_new = self.child is None or self.child.poll() is not None
            if is_new:
                try:
                    self.child = _start_child()
                except OSError:
                    return ""
            assert self.child is not None
            started = time.monotonic()
            answer = _exchange_message(self.child, path, timeout)
            if answer:
                return str(json.loads(answer)["problem"])
            elapsed = time.monotonic() - started
            if is_new or self.child.wait() < 0 or elapsed > timeout / 2:
                return CRASH_REASON
        return CRASH_REASON


_validator = Hdf5Validator()


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
    """Send a path and return the child's answer, "" when the child has ended.

    The child enforces the timeout: a timer thread here might fail to start where memory is short.
    """
    assert child.stdin is not None and child.stdout is not None
    try:
        child.stdin.write(json.dumps([path, timeout]) + "\n")
        child.stdin.flush()
    except OSError:
        return ""
    return child.stdout.readline()


# ---- child ----------------------------------------------------------------------------------


def validate_in_process(path: str) -> str:
    """Validate a file in this process; see `validate_hdf5`."""
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
        if item.nbytes <= ALWAYS_ALLOWED_BYTES:  # beyond the header a larger one is only data
            item[()]
    if total > max(ALWAYS_ALLOWED_BYTES, MAX_DEFLATE_RATIO * file_size):
        return describe_excess_size(total)
    return ""


def _chunk_bytes(item: Any) -> int:
    """Return the size of a chunk, 0 without chunks; a reference to a text has 16 bytes on disk."""
    item_bytes = int(item.dtype.itemsize) * (2 if item.dtype.hasobject else 1)
    return math.prod(item.chunks or (0,)) * item_bytes


def _has_valid_chunk_sizes(item: Any) -> bool:
    """Whether no chunk unpacks to more than its size; HDF5 itself unpacks without a limit."""
    for i in range(item.id.get_num_chunks()):
        offset = item.id.get_chunk_info(i).chunk_offset
        filter_mask, packed = item.id.read_direct_chunk(offset)
        if filter_mask:  # some of the filters were not applied to this chunk
            continue
        decompressor = zlib.decompressobj()
        decompressor.decompress(packed, max(_chunk_bytes(item), 1))
        rest = decompressor.unconsumed_tail
        if rest and decompressor.decompress(rest, 1):
            return False
    return True


def _iter_objects(root: Any) -> Iterator[Any]:
    """Yield the root and every object below it once; None for a link to another file."""
    import h5py

    yield root
    pending, seen = [root], set()
    while pending:
        group = pending.pop()
        for name in group:
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                yield None
                continue
            if not isinstance(link, h5py.HardLink):
                continue  # a soft link leads to an object of this file, or to none
            item = group[name]
            address = h5py.h5o.get_info(item.id).addr
            if address in seen:
                continue
            seen.add(address)
            yield item
            if isinstance(item, h5py.Group):
                pending.append(item)


def _serve_requests() -> None:
    """Answer one path per line until the parent has ended or sends nothing for a minute.

    The timeouts are faulthandler's, which end this process whatever the HDF5 library does.
    """
    import h5py  # noqa: F401  # imported before the time of a file is limited

    while True:
        faulthandler.dump_traceback_later(IDLE_TIMEOUT_S, exit=True)
        line = sys.stdin.readline()
        if not line:
            return
        path, timeout = json.loads(line)
        faulthandler.dump_traceback_later(timeout, exit=True)
        _limit_cpu_time(path)
        print(json.dumps({"problem": validate_in_process(path)}), flush=True)


def _limit_cpu_time(path: str) -> None:
    """End this process when it computes too long: HDF5 loops forever on some damaged files.

    CPU time is limited and not wall time, so that a busy machine rejects no file.
    """
    with suppress(ImportError, OSError, ValueError):  # on Windows only the timeout applies
        import resource

        limit = int(time.process_time() + CPU_LIMIT_S + os.path.getsize(path) / BYTES_PER_S) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))


if __name__ == "__main__":
    _serve_requests()
