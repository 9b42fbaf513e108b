"""Cache entries whose rows are computed from their keys, and processes that write them."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from napari_dkan.inference.cache.cache_entry import open_cache_entry
from napari_dkan.inference.cache.cache_key import CacheKey

WIDTH = 24
MADE_BY = (("encoder", "stain"), ("mpp", 0.5), ("checkpoint", "a" * 64))
KEY = CacheKey("f" * 64, "slides/C3.tif", "features", WIDTH, MADE_BY)

# Appends rows and prints the last index after each append. Imports neither torch nor napari.
WRITER = """
import sys
import numpy as np
import zarr
from napari_dkan.inference.cache import cache_segments
from napari_dkan.inference.cache.cache_key import CacheKey
from napari_dkan.inference.cache.cache_entry import open_cache_entry

cache_segments.MAX_SMALL_SEGMENTS = 6
first, count, folder, key = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
store = open_cache_entry(CacheKey.from_json(key), folder, 2**40)
print("ready", flush=True)
sys.stdin.readline()
for part in range(count):
    x = np.arange(16) + first + 16 * part
    keys = np.stack([x, -3 * x], 1)
    rows = np.sin(x[:, None] * np.arange(1, store.key.width + 1)).astype(np.float32)
    store.append(keys, rows)
    print(x[-1], store.note, flush=True)
"""


def keys_of(x):
    return np.stack([x, -3 * x], 1).astype(np.int64)


def rows_of(x):
    return np.sin(x[:, None] * np.arange(1, WIDTH + 1)).astype(np.float32)


def fill(folder, count=40, first=0, key=KEY):
    store = open_cache_entry(key, folder, 2**40)
    x = np.arange(first, first + count)
    store.append(keys_of(x), rows_of(x))
    assert store.is_writable
    return store


def load_indices(folder, key=KEY):
    """Indices of all rows on disk, after a check that each row is correct to the bit."""
    keys, rows = open_cache_entry(key, folder, 2**40).load()
    x = keys[:, 0]
    assert (keys == keys_of(x)).all() and rows.tobytes() == rows_of(x).tobytes()
    assert len(set(x.tolist())) == len(x)
    return set(x.tolist())


def start_writer(folder, first, count):
    arguments = [sys.executable, "-c", WRITER, str(first), str(count), str(folder), KEY.to_json()]
    return subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )


def release_writer(process):
    assert process.stdout.readline() == "ready\n"
    process.stdin.write("\n")


def changed_key(**changes):
    """The key with some values changed or added."""
    values = {"slide": KEY.slide, "path": KEY.path, "what": KEY.what, "width": KEY.width}
    made_by = dict(MADE_BY) | {k: v for k, v in changes.items() if k not in values}
    named = {k: v for k, v in changes.items() if k in values}
    return CacheKey(**(values | named), made_by=tuple(made_by.items()))
