"""What is left on the disk when a process is killed while it writes.

    python benchmarks/power_cut.py [--cuts 200] [--only h5ad,memory]

For everything that is written: a child writes one version over the other again and again, is ended
with SIGKILL at a random moment (seeded), and then the file must be the old one or the new one,
whole; a folder must be whole or absent. POSIX only, as it forks.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Writer:
    """write : puts version 0 or 1 at a path. read : which version is there, raising anything for
    a half one. new : it only writes to a new path, which is removed before each turn."""

    name: str
    file: str
    write: Callable[[Path, int], object]
    read: Callable[[Path], int]
    new: bool = False


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--cuts", type=int, default=200, help="of each writer")
    options.add_argument("--only", default="")
    given = options.parse_args()
    only = [name for name in given.only.split(",") if name]
    folder = Path(tempfile.mkdtemp(prefix="power-cut-"))
    os.environ["NAPARI_DKAN_CACHE"] = str(folder / "cache")
    os.environ["XDG_CONFIG_HOME"] = str(folder / "config")
    failures = 0
    try:
        for writer in writers(folder):
            if not only or writer.name in only:
                failures += tried(writer, folder / writer.name, given.cuts)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if failures else 0


def tried(writer: Writer, folder: Path, cuts: int) -> int:
    """Kill so often; a line with what was found."""
    folder.mkdir(parents=True)
    path, chance = folder / writer.file, random.Random(2021)
    for version in (1, 0):  # the second one is not the one that imports
        if writer.new:
            shutil.rmtree(path, ignore_errors=True)
        began = time.perf_counter()
        writer.write(path, version)
        takes = time.perf_counter() - began
    found: dict[str, int] = {"old": 0, "new": 0, "absent": 0, "half": 0, "midway": 0}
    for turn in range(cuts):
        if writer.new:
            shutil.rmtree(path, ignore_errors=True)
        before = None if writer.new else writer.read(path)
        cut(writer, path, 1 - (before or 0), chance.uniform(0, max(1.5 * takes, 0.02)))
        midway = list(folder.parent.rglob(".writing-*"))
        found["midway"] += bool(midway)
        for left in midway:
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        try:
            if writer.new and not path.exists():
                found["absent"] += 1
            else:
                found["old" if writer.read(path) == before else "new"] += 1
        except Exception as error:  # whatever a half file leads to is what is looked for
            found["half"] += 1
            print(f"  {writer.name}, cut {turn}: {error!r:.200}", file=sys.stderr)
            writer.write(path, 0)
    print(json.dumps({"writer": writer.name, "cuts": cuts, "write_s": round(takes, 3), **found}))
    return found["half"]


def cut(writer: Writer, path: Path, version: int, after: float) -> None:
    """A child that writes one version over the other, this one first, ended after so many seconds;
    what is only written to a new path is written once."""
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(tell, b"!")
            while not (writer.new and path.exists()):
                writer.write(path, version)
                version = 1 - version
            time.sleep(60)
        finally:
            os._exit(0)
    os.read(ready, 1)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(ready)
    os.close(tell)


# ---- what is written ------------------------------------------------------------------------


def writers(folder: Path) -> list[Writer]:
    from napari_dkan.export.export_formats import write_result
    from napari_dkan.export.result_reader import load_result

    results = [result(0.0), result(1.0)]

    def export(path: Path, version: int) -> object:
        return write_result(path, results[version])

    def value(table: Any) -> int:
        """Of a whole table: every value in it is that of its version."""
        numbers = np.asarray(table, np.float64)
        assert numbers.size == CELLS * len(GENES) and (numbers == numbers.flat[0]).all()
        return int(numbers.flat[0])

    def csv(path: Path) -> int:
        import pandas as pd

        return value(pd.read_csv(path)[list(GENES)])

    def geojson(path: Path) -> int:
        features = json.loads(path.read_text(encoding="utf-8"))["features"]
        measured = [f["properties"]["measurements"] for f in features]
        return value([[m[k] for k in m if k.split(" ")[0] in GENES] for m in measured])

    def heatmap(path: Path) -> int:
        import zarr

        group = zarr.open_group(path, mode="r")
        level = group[next(iter(sorted(group.array_keys())))][:]
        return value(level[np.isfinite(level)])

    def spatialdata(path: Path) -> int:
        import zarr

        group = zarr.open_group(path, mode="r")
        table = next(group["tables"].group_values())
        assert table["X"].nchunks_initialized == table["X"].nchunks
        return value(table["X"][:])

    return [
        Writer("h5ad", "a.h5ad", export, lambda p: value(load_result(p).prediction.values)),
        Writer("csv", "a.csv", export, csv),
        Writer("geojson", "a.geojson", export, geojson),
        Writer("heatmap", "a.ome.zarr", export, heatmap, new=True),
        Writer("spatialdata", "a.spatialdata.zarr", export, spatialdata, new=True),
        checkpoint(),
        memory(),
        store(folder),
    ]


CELLS, GENES = 400, tuple(f"GENE{i}" for i in range(50))


def result(value: float) -> Any:
    """A result with this value everywhere."""
    from napari_dkan.export.histology import SlideOverview
    from napari_dkan.export.saved_result import SavedResult, SlideRecord
    from napari_dkan.expression.label_scale import LabelScale
    from napari_dkan.expression.panel import Gene, Panel
    from napari_dkan.inference.prediction import Prediction
    from napari_dkan.inference.target import Target, TargetKind
    from napari_dkan.spatial.tile_grid import TileGrid

    cells = np.stack(np.meshgrid(np.arange(20), np.arange(20)), -1).reshape(-1, 2)
    grid = TileGrid(200.0, 100.0, cells)
    panel = Panel(tuple(Gene(symbol) for symbol in GENES))
    made_by = {
        "kind": "predicted",
        "version": "0",
        "created": "2026-01-01T00:00:00+00:00",
        "checkpoint": "none",
        "checkpoint_sha256": "0" * 64,
        "slide": "slide.svs",
        "slide_fingerprint": "0" * 64,
        "mpp": 0.5,
        "mpp_origin": "entered by hand",
        "pitch_um": 100.0,
        "where": "grid",
        "patch_um": 100.0,
        "label_scale": LabelScale().name,
    }
    target = Target(TargetKind.GRID, grid.to_spots(), grid)
    prediction = Prediction.create_empty(target, panel, LabelScale(), made_by, token_dim=16)
    prediction.values[:] = prediction.tokens[:] = prediction.qc_features[:] = value
    slide = SlideRecord("slide", "slide.svs", "0" * 64, 4_000, 4_000, 0.5, "entered by hand")
    picture = SlideOverview(np.full((400, 400, 3), 200, np.uint8), 0.1)
    return SavedResult(prediction, slide, {"title": "none"}, overview=picture)


def checkpoint() -> Writer:
    import torch

    from napari_dkan.model import load_checkpoint, save_checkpoint
    from napari_dkan.samples.bundled_checkpoints import find_bundled_checkpoint

    torch.set_num_threads(1)  # its threads would be missing in the child
    loaded = load_checkpoint(find_bundled_checkpoint("synthetic"))
    versions = [replace(loaded, card={**loaded.card, "version": v}) for v in (0, 1)]
    return Writer(
        "checkpoint",
        "a.safetensors",
        lambda path, version: save_checkpoint(path, versions[version]),
        lambda path: int(load_checkpoint(path).card["version"]),
    )


def memory() -> Writer:
    """What the viewer remembers, in its own place."""
    from napari_dkan.viewer.session import user_history as remembered

    def read(path: Path) -> int:
        told = json.loads(
            remembered._history_path().read_text(encoding="utf-8")
        )  # half a file raises
        return int(told["mpp"]["slide"])

    return Writer(
        "memory", "unused", lambda path, version: remembered.save_pixel_size("slide", version), read
    )


def store(folder: Path) -> Writer:
    """Tiles kept on disk: what can be read of them is right, the rest is computed anew."""
    from napari_dkan.inference.cache.cache_entry import open_cache_entry
    from napari_dkan.inference.cache.cache_key import CacheKey

    key = CacheKey("0" * 64, "slide.svs", "features", 64, (("encoder", "none"),))
    keys = np.stack(np.meshgrid(np.arange(40), np.arange(50)), -1).reshape(-1, 2)
    rows = np.repeat(keys.sum(axis=1, dtype=np.float32)[:, None], 64, axis=1)

    def write(path: Path, version: int) -> None:
        """Many small parts, so that some are merged too."""
        kept = open_cache_entry(key, path, 1 << 30)
        for some in np.array_split(np.arange(len(keys)), 10):
            kept.append(keys[some], rows[some])

    def read(path: Path) -> int:
        kept = open_cache_entry(key, path, 1 << 30)
        known, values = kept.load()
        assert (
            not kept.damaged_segments
            and (values == known.sum(axis=1, dtype=np.float32)[:, None]).all()
        )
        return 1

    return Writer("store", "tiles", write, read, new=True)


if __name__ == "__main__":
    sys.exit(main())
