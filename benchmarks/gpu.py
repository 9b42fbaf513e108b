"""The figures that need a GPU: encoding a whole slide, clicks, the lens and fine-tuning.

The encoder is ViT-L/16 and the network that of the published size.

Without a window, on a section mirrored into a pyramidal JPEG TIFF in build/; random weights.

Encoding counts from the first read to the last feature in memory. Beside it stand reading alone
and encoding alone, of which the slower one is what limits it, and the operations done as a share
of the same GPU's measured bfloat16 matrix product.

A click is cold as in `clicks.py`: its surroundings are known, none of its 25 patches is. It counts
from the place to the values of all genes. The lens is a circle of a millimetre over tiles that
are not known yet: one gene, nearest tiles first. Fine-tuning is an epoch over a section of spots
in memory, of random numbers: its decoder alone, from tokens that are computed once, and
everything.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from fine_tuning_epoch import seconds_of_epochs
from numpy.typing import NDArray
from operations import operations, product_rate
from published_model import PX, published_checkpoint
from pyramid import MPP, pyramid_file
from shapely.geometry import Point, box
from verdict import Figure, print_table

from napari_dkan.inference.patch_features.patch_geometry import PatchKeys, keys_from_centers
from napari_dkan.inference.patch_features.patch_loader import open_patch_loader
from napari_dkan.inference.predictor import Predictor
from napari_dkan.inference.target import Target, TargetKind, target_from_region
from napari_dkan.model import Checkpoint
from napari_dkan.slide import Slide, open_slide
from napari_dkan.spatial.spots import Spots

RATE, SHARE, CLICK_MS = 3000, 0.5, 100
ENCODING, CLICK = "whole-slide encoding, ViT-L/16", "click to values, ViT-L/16, cold"
LENS_RADIUS_UM = 1000
FIRST = 2048  # tiles before the clock starts
ROUND = 256  # tiles encoded at once when encoding alone


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=96, help="tiles along a side of the slide")
    parser.add_argument("--clicks", type=int, default=100)
    parser.add_argument("--rehearse", action="store_true", help="a light form on the CPU")
    args = parser.parse_args()
    if not (torch.cuda.is_available() or args.rehearse):
        rows = ((ENCODING, f">= {RATE:,} tiles/s"), (CLICK, f"p95 <= {CLICK_MS} ms"))
        print_table([Figure(w, "H100 or H200", t, "-", None, "no GPU") for w, t in rows])
        return
    device = "cpu" if args.rehearse else "cuda"
    encoder, dim, genes = "vit_large_patch16_224", 1024, 250
    if args.rehearse:
        encoder, dim, genes = "vit_tiny_patch16_224", 192, 20
    checkpoint = published_checkpoint(encoder, dim, genes, MPP)
    path = pyramid_file(args.side * PX)
    where = "CPU, rehearsal" if args.rehearse else torch.cuda.get_device_name()
    with open_slide(path) as slide:
        whole = box(0, 0, slide.width, slide.height)
        predictor = Predictor(slide, checkpoint, MPP, whole, device)
        size = slide.width, slide.height
        tiles = target_from_region(whole, checkpoint.patch.um, MPP, *size).spots.xy
        print(f"\n{path.name}, {len(tiles):,} tiles of {PX} px, {encoder}, {where}\n", flush=True)
        figures = [*_encoding(predictor, keys_from_centers(tiles), where)]
        figures.append(_click(predictor, args.clicks, where))
        _print_lens(predictor)
    _print_fine_tuning(checkpoint, device, spots=24 if args.rehearse else 300)
    print_table(figures)


def _encoding(predictor: Predictor, keys: PatchKeys, where: str) -> list[Figure]:
    few = min(FIRST, len(keys) // 2)
    encode(predictor, keys[:few])
    predictor.stage_timer.reset()
    seconds = encode(predictor, keys[few:])
    print(predictor.stage_timer.format_report())
    rate = (len(keys) - few) / seconds
    with open_slide(predictor.slide.path) as again:
        reading = len(keys) / read(again, predictor, keys)
    alone = encoding_alone(predictor, min(ROUND, few // 8))
    encoder, device = predictor.feature_cache.encoder, predictor.device
    tile = torch.zeros(1, 3, PX, PX, dtype=torch.uint8, device=device)
    each = operations(lambda: encoder(tile))
    gpu = device.type == "cuda"
    peak = product_rate(device.type, torch.bfloat16, 8192) if gpu else product_rate()
    share = rate * each / peak
    print(
        f"\nreading alone {reading:,.0f} tiles/s, encoding alone {alone:,.0f} tiles/s "
        f"({alone * each / peak:.0%} of the product's {peak / 1e12:.3g} TFLOP/s, "
        f"{each / 1e9:.0f} GFLOP a tile)"
    )
    limit = f"limited by {'reading' if reading < alone else 'the encoder'}"
    figure = f"{rate:,.0f} tiles/s, {share:.0%}"
    both = bool(rate >= RATE and share >= SHARE) if gpu else None
    target = f">= {RATE:,} tiles/s and >= {SHARE:.0%} of the bfloat16 product"
    return [
        Figure(ENCODING, where, target, figure, both, limit if gpu else f"a rehearsal, {limit}")
    ]


def encode(predictor: Predictor, keys: PatchKeys) -> float:
    """Seconds to read and encode patches (N, 2) as the engine does."""
    start = time.perf_counter()
    with open_patch_loader(predictor.slide, predictor.patch_side_px, predictor.stage_timer) as pool:
        for _ in predictor.feature_cache.compute_missing(pool, keys):
            pass
    return time.perf_counter() - start


def read(slide: Slide, predictor: Predictor, keys: PatchKeys) -> float:
    """Seconds to read patches (N, 2) with the engine's threads, without encoding them."""
    start = time.perf_counter()
    with open_patch_loader(slide, predictor.patch_side_px, predictor.stage_timer) as pool:
        for first in range(0, len(keys), FIRST):
            pool.request(keys[first : first + FIRST], predictor.feature_cache.tile_px).result()
    return time.perf_counter() - start


def encoding_alone(predictor: Predictor, count: int, rounds: int = 8) -> float:
    """Tiles a second of the encoder on ``count`` tiles at once, whose pixels are in memory."""
    draw = np.random.default_rng(0)
    tiles = draw.integers(0, 256, (count, PX, PX, 3), np.uint8)
    predictor.feature_cache.encode(tiles).cpu()
    start = time.perf_counter()
    for _ in range(rounds):
        done = predictor.feature_cache.encode(tiles)
    done.cpu()
    return rounds * count / (time.perf_counter() - start)


def _click(predictor: Predictor, clicks: int, where: str) -> Figure:
    slide, draw = predictor.slide, np.random.default_rng(0)
    # within one window of surroundings, that of the slide's middle
    middle = np.array([slide.width, slide.height]) / 2
    places = middle + draw.uniform(-0.1, 0.1, (clicks + 1, 2)) * (slide.width, slide.height)
    first, *spent = [clicked(predictor, xy) for xy in places]
    p95 = float(np.percentile(spent, 95))
    print(f"first click, with its surroundings: {first:.0f} ms")
    met = p95 <= CLICK_MS if predictor.device.type == "cuda" else None
    figure = f"{p95:.0f} ms (median {np.median(spent):.0f})"
    target = f"p95 <= {CLICK_MS} ms"
    return Figure(f"{CLICK}, {clicks} clicks", where, target, figure, met, "without a window")


def _print_lens(predictor: Predictor) -> None:
    """Seconds until the first and until all values of a gene in the circle of a lens."""
    slide, um = predictor.slide, predictor.checkpoint.patch.um
    middle = np.array([slide.width, slide.height]) * 0.75  # away from the clicks
    circle = Point(middle).buffer(LENS_RADIUS_UM / predictor.mpp)
    tiles = target_from_region(circle, um, predictor.mpp, slide.width, slide.height)
    start, first = time.perf_counter(), 0.0
    for update in predictor.stream(
        tiles, lambda xy: np.argsort(np.hypot(*(xy - middle).T)), genes=[0]
    ):
        if len(update.rows) and not first:
            first = time.perf_counter() - start
    seconds = time.perf_counter() - start
    print(
        f"\nlens of {LENS_RADIUS_UM:,} um over tiles that are not known: first values after "
        f"{first:.2f} s, all {len(tiles)} tiles after {seconds:.2f} s"
    )


def _print_fine_tuning(checkpoint: Checkpoint, device: str, spots: int) -> None:
    found = seconds_of_epochs(checkpoint, device, spots)
    parts = ", ".join(f"{what} {seconds:.2f} s" for what, seconds in found.items())
    print(f"\nan epoch of fine-tuning, {spots} spots of random numbers: {parts}")


def clicked(predictor: Predictor, xy: NDArray[np.float64]) -> float:
    """Milliseconds from a place (2,) in level-0 px to its values of all genes."""
    start = time.perf_counter()
    for _ in predictor.stream(Target(TargetKind.POINTS, Spots(xy[None]))):
        pass
    return 1000 * (time.perf_counter() - start)


if __name__ == "__main__":
    main()
