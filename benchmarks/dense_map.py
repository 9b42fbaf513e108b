"""A dense map of all genes with a network of the published size, ours against the literal path.

A square region of tiles that touch, on a real section or a drawn one. Random weights: they cost
what trained ones cost. Ours runs over the whole region with nothing kept from before; the literal
path (`literal.py`) encodes every tile's own patch for the slide's features, and predicts a few
tiles in one batch. Its seconds a tile are the sum of both shares. Encoders and weights stand
ready for either. The region is all the tissue there is, so both see the same slide.

With --crop the slide is that region and nothing else, so that nothing around it can be seen: what
a small slide costs that is mapped as a whole.

The floor is what the operations alone would take at the measured rate of a matrix product. Ours
encodes a ring two tiles wide around the region too, which a small region pays for dearly: so a
second row counts one encoding a tile, as it is in a large map, at the seconds measured here.
"""

from __future__ import annotations

import argparse
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from literal import LiteralPath
from numpy.typing import NDArray
from operations import has_bfloat16, operations, product_rate
from published_model import PX, published_checkpoint
from section import BUILD, best_section
from shapely.geometry import box
from verdict import Figure, print_table

from napari_dkan.inference.predict import find_tissue_region
from napari_dkan.inference.predictor import Predictor
from napari_dkan.inference.target import Target, target_from_region
from napari_dkan.model.checkpoint.checkpoint_file import Checkpoint
from napari_dkan.slide import Slide, open_slide

RING = 2  # tiles around a tile that it sees


@dataclass(frozen=True)
class Mapped:
    """Values (N, G), and the seconds until the first gene and until all genes were there.

    encode : seconds of these in the encoder.
    """

    values: NDArray[np.float32]
    first: float
    panel: float
    encode: float


@dataclass(frozen=True)
class Literal:
    """Values (K, G) of some rows, and seconds and operations of one tile."""

    rows: NDArray[np.int64]
    values: NDArray[np.float32]
    seconds: float
    operations: float


def ours(predictor: Predictor, target: Target) -> Mapped:
    """As the window does it: one gene's map first, the other genes from the fused tokens."""
    tokens = np.zeros((len(target), predictor.prediction_context.token_dim), np.float32)
    start = time.perf_counter()
    for update in predictor.stream(target, genes=[0]):
        if update.tokens is not None:
            tokens[update.rows] = update.tokens
    first = time.perf_counter() - start
    values = predictor.decode(tokens)
    panel = time.perf_counter() - start
    return Mapped(values, first, panel, predictor.stage_timer.get_seconds()["encode"])


def published(slide: Slide, checkpoint: Checkpoint, target: Target, tiles: int) -> Literal:
    """The literal path on ``tiles`` tiles of the target, spread over it."""
    encoder = checkpoint.build_tile_encoder()
    path = LiteralPath(slide, checkpoint.network, encoder, float(PX), checkpoint.patch.px)
    assert target.spots.array_coords is not None
    positions = torch.from_numpy(target.spots.array_coords)
    rows = np.linspace(0, len(target) - 1, tiles).astype(np.int64)
    xy = target.spots.xy

    start = time.perf_counter()
    features = torch.stack([path.own_feature(x, y) for x, y in xy])
    own = (time.perf_counter() - start) / len(target)
    start = time.perf_counter()
    values = path.predict(xy[rows], torch.from_numpy(rows), features, positions)
    rest = (time.perf_counter() - start) / tiles
    work = operations(lambda: path.own_feature(*xy[0])) + operations(
        lambda: path.predict(xy[:1], torch.tensor([0]), features, positions)
    )
    return Literal(rows, values.numpy(), own + rest, work)


def parts(checkpoint: Checkpoint) -> dict[str, float]:
    """Operations of our own pieces, each for one tile."""
    network, d, k = checkpoint.network, checkpoint.network.config.dim, 25
    encoder = checkpoint.build_tile_encoder()
    tile = torch.zeros(1, 3, PX, PX, dtype=torch.uint8)
    patch, near, own = torch.zeros(1, 3, PX, PX), torch.zeros(1, k, d), torch.zeros(1, d)
    with torch.no_grad():
        network.encode_genes()  # once for all tiles
    return {
        "encode": operations(lambda: encoder(tile)),
        "fuse": operations(lambda: network.fuse(patch, near, torch.ones(1, k), own)),
        "decode": operations(lambda: network.decode(own)),
    }


def cropped(slide: Slide, column: int, row: int, side: int) -> Path:
    """The region as a slide of its own, in build/."""
    from PIL import Image

    BUILD.mkdir(parents=True, exist_ok=True)
    path = BUILD / f"crop-{slide.name}-{side}.png"
    pixels = slide.read_region(column * PX, row * PX, side * PX, side * PX)
    Image.fromarray(pixels).save(path)
    return path


def main() -> None:
    args = _arguments()
    section = best_section()
    checkpoint = published_checkpoint(args.encoder, args.dim, args.genes, section.mpp)
    with open_slide(section.image) as whole:
        middle = find_tissue_region(whole, section.mpp).centroid
        column, row = (int(v / PX) - args.side // 2 for v in (middle.x, middle.y))
        image = section.image
        if args.crop:
            image, column, row = cropped(whole, column, row, args.side), 0, 0
    with open_slide(image) as slide:
        region = box(*(PX * v for v in (column, row, column + args.side, row + args.side)))
        size = slide.width, slide.height
        target = target_from_region(region, checkpoint.patch.um, section.mpp, *size)

        def mapped(mixed: bool) -> Mapped:
            predictor = Predictor(slide, checkpoint, section.mpp, region, "cpu")
            predictor.feature_cache.encoder  # noqa: B018 - stands ready, as the literal path's does
            with torch.autocast("cpu", torch.bfloat16) if mixed else nullcontext():
                done = ours(predictor, target)
            print(f"\n{predictor.stage_timer.format_report()}\n")
            return done

        print(
            f"\n{section.name}, {args.side} x {args.side} tiles, {args.encoder}, d = {args.dim}, "
            f"{args.genes} genes, {torch.get_num_threads()} threads; literal: {args.literal} tiles",
            flush=True,
        )
        exact = mapped(False)
        print(f"ours: {exact.panel:.1f} s", flush=True)
        literal = published(slide, checkpoint, target, args.literal)
        print(f"literal: {literal.seconds:.1f} s a tile\n", flush=True)
        rounded = mapped(True) if args.bfloat16 else None
    figures = _figures(args, target, exact, literal, parts(checkpoint))
    print_table([*figures, *_bfloat16(args, exact, literal, rounded)])


def _figures(
    args: argparse.Namespace,
    target: Target,
    mapped: Mapped,
    literal: Literal,
    each: dict[str, float],
) -> list[Figure]:
    rate, n = product_rate(), len(target)
    passes = 1.0 if args.crop else (args.side + 2 * RING) ** 2 / n
    floor = each["encode"] * passes + each["fuse"] + each["decode"]
    endless = literal.operations / sum(each.values())
    print("| of one tile | GFLOP | seconds at the rate of a product | seconds measured |")
    print("|---|---|---|---|")
    print(_row(f"ours, {passes:.2f} encodings", floor, rate, mapped.panel / n))
    for name, count in each.items():
        print(_row(f"once {name}", count, rate, None))
    print(_row("literal, 26 encodings", literal.operations, rate, literal.seconds))
    print(f"\nA product runs at {rate / 1e9:.0f} GFLOP/s.")
    inner = mapped.encode / (passes * n) + (mapped.panel - mapped.encode) / n
    apart = float(np.abs(mapped.values[literal.rows] - literal.values).max())
    place = "a slide of" if args.crop else "a region of"
    where = f"{torch.get_num_threads()} CPU threads, {place} {args.side} x {args.side} tiles"
    small = "small form, of a light encoder; " if args.small else ""

    def against(what: str, seconds: float, most: float) -> Figure:
        ratio = literal.seconds / seconds
        figure = f"{ratio:.1f}x ({seconds:.3g} s a tile against {literal.seconds:.3g})"
        met = None if args.small else bool(ratio >= 20)
        return Figure(what, where, ">= 20x", figure, met, f"{small}operations allow {most:.1f}x")

    what = "dense map, whole panel, against the literal path"
    return [
        against(what, mapped.panel / n, literal.operations / floor),
        *([] if args.crop else [against(f"{what}, without the ring around it", inner, endless)]),
        Figure("equal to the literal path", where, "<= 1e-4", f"{apart:.1e}", apart <= 1e-4),
        Figure(
            "the first gene's map",
            where,
            "before the panel",
            f"{mapped.first:.3g} s of {mapped.panel:.3g} s",
            mapped.first < mapped.panel,
        ),
    ]


def _bfloat16(
    args: argparse.Namespace, exact: Mapped, literal: Literal, rounded: Mapped | None
) -> list[Figure]:
    what, alike = "dense map in bfloat16, against the literal path", "bfloat16 against float32"
    where, least = f"{torch.get_num_threads()} CPU threads", ">= 0.999 for every gene"
    if rounded is None:
        why = "this CPU has no bfloat16"
        return [
            Figure(what, where, ">= 40x", "-", None, why),
            Figure(alike, where, least, "-", None, why),
        ]
    ratio = literal.seconds / (rounded.panel / len(exact.values))
    same = min(
        np.corrcoef(a, b)[0, 1] for a, b in zip(exact.values.T, rounded.values.T, strict=True)
    )
    slow = "" if has_bfloat16() else "this CPU has no bfloat16 and works it out in float32"
    met = None if args.small or slow else bool(ratio >= 40)
    # random weights make tiles much alike, and rounding weighs the more
    spread = float(np.median(exact.values.std(axis=0) / np.abs(exact.values).mean(axis=0)))
    note = f"random weights: values vary by {spread:.1%} of their size between tiles"
    return [
        Figure(what, where, ">= 40x", f"{ratio:.1f}x", met, slow),
        Figure(alike, where, least, f"{same:.5f} for the worst", bool(same >= 0.999), note),
    ]


def _row(what: str, count: float, rate: float, measured: float | None) -> str:
    seconds = "" if measured is None else f"{measured:.3g}"
    return f"| {what} | {count / 1e9:.1f} | {count / rate:.3g} | {seconds} |"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="a light encoder, d = 192, 64 genes")
    parser.add_argument("--side", type=int, default=6, help="tiles along a side of the region")
    parser.add_argument("--literal", type=int, default=3, help="tiles of the literal path")
    parser.add_argument("--crop", action="store_true", help="a slide that is the region alone")
    parser.add_argument(
        "--bfloat16",
        action="store_true",
        default=has_bfloat16(),
        help="also where the CPU is slow at it",
    )
    args = parser.parse_args()
    args.encoder = f"vit_{'tiny' if args.small else 'large'}_patch16_224"
    args.dim, args.genes = (192, 64) if args.small else (1024, 250)
    return args


if __name__ == "__main__":
    main()
