"""Squares per second of the readers of a pyramidal TIFF and an SVS: ours, OpenSlide, fastslide.

python benchmarks/readers.py [--squares 600] [--repeats 2]

Squares of 224 px from level 0, files in the page cache, 128 MiB for decoded tiles in each reader,
a new reader for every figure. "on the grid": each square lies in one tile of the file; "free":
squares side by side from (1, 1) on, most of them on two or four tiles. fastslide is no
dependency; it is compared where it can be imported.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pyramid import pyramid_file

SIDE = 224
CACHE = 128 * 2**20

Corner = tuple[int, int]
Read = Callable[[int, int], NDArray[np.uint8]]


@contextmanager
def ours(path: Path) -> Iterator[Read]:
    """Slide.read_region: tifffile and imagecodecs."""
    from napari_dkan.slide import open_slide

    with open_slide(path) as slide:
        yield lambda x, y: slide.read_region(x, y, SIDE, SIDE)


@contextmanager
def ours_openslide(path: Path) -> Iterator[Read]:
    """Our reader of vendor formats: OpenSlide along the tile grid, RGB tiles kept."""
    from napari_dkan.slide.slide import Slide
    from napari_dkan.slide.sources.openslide_source import OpenSlideSource

    with Slide(path, OpenSlideSource(path)) as slide:
        yield lambda x, y: slide.read_region(x, y, SIDE, SIDE)


@contextmanager
def plain_openslide(path: Path) -> Iterator[Read]:
    import openslide

    with openslide.OpenSlide(str(path)) as slide:
        slide.set_cache(openslide.OpenSlideCache(CACHE))
        yield lambda x, y: np.asarray(slide.read_region((x, y), 0, (SIDE, SIDE)).convert("RGB"))


@contextmanager
def fast_slide(path: Path) -> Iterator[Read]:
    from fastslide import FastSlide

    slide = FastSlide.from_file_path(path, cache=CACHE)
    yield lambda x, y: slide.read_region((x, y), 0, (SIDE, SIDE)).numpy()
    slide.close()


READERS = {
    "ours (tifffile + imagecodecs)": ours,
    "OpenSlide": plain_openslide,
    "ours on OpenSlide": ours_openslide,
    "fastslide": fast_slide,
}


def on_grid(width: int, height: int, tile: Corner) -> list[Corner]:
    columns, rows = range(0, width - SIDE, tile[0]), range(0, height - SIDE, tile[1])
    return [(x, y) for y in rows for x in columns]


def free(width: int, height: int) -> list[Corner]:
    return [(x, y) for y in range(1, height - SIDE, SIDE) for x in range(1, width - SIDE, SIDE)]


def rate(open_reader: Callable, path: Path, corners: list[Corner], threads: int) -> float:
    """Squares per second with a new reader."""
    with open_reader(path) as read, ThreadPoolExecutor(threads) as pool:
        read(*corners[0])
        shares = [corners[i::threads] for i in range(threads)]
        start = time.perf_counter()
        jobs = [pool.submit(lambda c=share: [read(*at).shape for at in c]) for share in shares]
        for job in jobs:
            job.result()
        return len(corners) / (time.perf_counter() - start)


def available() -> dict[str, Callable]:
    found = dict(READERS)
    try:
        import fastslide
    except ImportError as error:
        print(f"\nfastslide is left out: {error}.")
        del found["fastslide"]
    else:
        print(f"\nfastslide {getattr(fastslide, '__version__', '')}")
    return found


def compare(path: Path, squares: int, repeats: int) -> None:
    from napari_dkan.slide import open_slide

    with open_slide(path) as slide:
        width, height, tile = slide.width, slide.height, slide._source.chunk_size
    random = np.random.default_rng(0)
    middle = len(free(width, height)) // 2
    places = {}
    grids = {"on the grid": on_grid(width, height, tile), "free": free(width, height)}
    for name, corners in grids.items():
        first = min(middle, max(len(corners) - squares, 0))
        places[name, "in rows"] = corners[first : first + squares]
        chosen = random.permutation(len(corners))[:squares]
        places[name, "at random"] = [corners[i] for i in chosen]
    readers = available()
    print(f"\n{path.name}, {width:,} x {height:,} px, tiles of {tile[0]}, {os.cpu_count()} cores\n")
    columns = [(*key, threads) for key in places for threads in (1, 2)]
    titles = [f"{a}, {b}, {n} thread{'s' * (n > 1)}" for a, b, n in columns]
    print("| reader |", " | ".join(titles), "| differs from ours by at most |")
    print("|" + "---|" * (len(columns) + 2))
    for name, reader in readers.items():
        figures = []
        for a, b, threads in columns:
            best = max(rate(reader, path, places[a, b], threads) for _ in range(repeats))
            figures.append(f"{best:,.0f}")
        apart = difference(reader, path, places["free", "at random"][:50])
        print(f"| {name} | " + " | ".join(figures) + f" | {apart} |", flush=True)


def difference(reader: Callable, path: Path, corners: list[Corner]) -> int:
    """The largest difference of a sample from what our reader gives, of 255."""
    with reader(path) as read, ours(path) as own:
        return max(int(np.abs(read(*at).astype(int) - own(*at)).max()) for at in corners)


def main() -> None:

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=20_000, help="of the pyramid, px")
    parser.add_argument("--squares", type=int, default=600)
    parser.add_argument("--repeats", type=int, default=2, help="the best counts")
    options = parser.parse_args()
    compare(pyramid_file(options.side), options.squares, options.repeats)
    svs = Path(os.environ.get("NAPARI_DKAN_DATA", "")) / "wsi" / "CMU-1-Small-Region.svs"
    if svs.exists():
        compare(svs, options.squares, options.repeats)
    else:
        print("\nThe SVS is left out: set NAPARI_DKAN_DATA to a folder with wsi/.")


if __name__ == "__main__":
    main()
