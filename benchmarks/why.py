"""Is "why here" about the prediction? Deletion curves on sections that a checkpoint never saw.

    python benchmarks/why.py --data DATA/her2st --folds build/folds -o build/why.json \\
        --report docs/reports/why.json

Seeded spots and genes of each of C2 to C5, under the checkpoint that was trained on the other
three (benchmarks/folds.py). Parts are taken away in the order of a map, and after every few of
them the whole network is asked again. A signed map is run through from both ends: what it says
supports the gene first (the prediction should fall), what it says holds it down first (it should
rise). Its *gain* is half the area between the two curves, in standard deviations of the gene over
the training spots; two random orders have a gain of 0. An unsigned map has only the change: the
area between |prediction - prediction at the start| in its order and in random orders. Error: the
same for the squared difference from the measured value.

The prediction of the curves is what is left of the gene beside depth (`why_maps.DepthOut`), and the
measured value the depth residual of the label; "plain" figures are of both as they are.

--paint blur covers with something else than the maps are made with.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from why_maps import OF_DEPTH, WITH_DEPTH, DepthOut, Spot, blurred, remaining
from why_table import mean_curves, summary, table

from napari_dkan.inference.occlusion import (
    DEFAULT_BLOCKS,
    attribute_gene,
    compute_mean_color,
    compute_occluded_tokens,
)
from napari_dkan.inference.predict import find_tissue_region, predict
from napari_dkan.inference.predictor import Predictor
from napari_dkan.inference.spot_inputs import compute_global_token, fuse_tokens
from napari_dkan.inference.target import target_from_spots
from napari_dkan.model import load_checkpoint
from napari_dkan.model.network.ensemble import get_linear_path, list_members
from napari_dkan.slide import open_slide
from napari_dkan.training.data.measured_section import make_measured_section
from napari_dkan.training.data.section_loading import read_section_data
from napari_dkan.training.depth_metrics import regress_out_depth
from napari_dkan.training.metrics import gene_pcc

NAMES = ("C2", "C3", "C4", "C5")
STEPS = np.arange(
    7, DEFAULT_BLOCKS**2, 7
)  # blocks gone when the network is asked; 0 and all are shared
RANDOM = 4
SIGNED_ONLY = ("covering, no short cut", WITH_DEPTH, OF_DEPTH, "of another gene")
KINDS = ("", "plain ")  # of figures: beside depth, and with it

Ask = Callable[[np.ndarray], torch.Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folds", type=Path, default=Path("build/folds"))
    parser.add_argument("--only", nargs="*", default=NAMES)
    parser.add_argument("--spots", type=int, default=12, help="of each section")
    parser.add_argument("--genes", type=int, default=5, help="of the panel, other ones a section")
    parser.add_argument("--seed", type=int, default=2021)
    parser.add_argument("--paint", choices=("mean", "blur"), default="mean")
    parser.add_argument("--table", action="store_true", help="only, of what is measured")
    parser.add_argument("--report", type=Path, help="means and intervals")
    parser.add_argument("-o", "--out", type=Path, required=True, help="every curve; added to")
    args = parser.parse_args()
    rows = json.loads(args.out.read_text()) if args.out.is_file() else []
    for name in () if args.table else args.only:
        file = args.folds / f"without-{name}.safetensors"
        rows = [r for r in rows if (r["section"], r["paint"]) != (name, args.paint)]
        rows += section(args.data, name, file, args)
        args.out.write_text(json.dumps(rows) + "\n")
    print(table(summary(rows)))
    if args.report is not None:
        settings = {"seed": args.seed, "spots": args.spots, "genes": args.genes, "random": RANDOM}
        report = {"settings": settings, "summary": summary(rows), "curves": mean_curves(rows)}
        args.report.write_text(json.dumps(report, indent=1) + "\n")


def section(data: Path, name: str, file: Path, args: Any) -> list[dict[str, Any]]:
    """One row for each spot, gene, kind of part and map."""
    checkpoint = load_checkpoint(file)
    measured = make_measured_section(next(iter(read_section_data(data, [name]))), checkpoint)
    random = np.random.default_rng([args.seed, int(name[1:])])
    places = random.choice(len(measured.labels.values), args.spots, replace=False)
    columns = random.choice(len(measured.panel_rows), args.genes, replace=False)
    genes = [measured.panel_rows[c] for c in columns]
    rows: list[dict[str, Any]] = []
    with open_slide(measured.data.uns["image"]) as slide:
        mpp = slide.mpp or float(measured.data.uns["mpp"])
        tissue = find_tissue_region(slide, mpp)
        predictor = Predictor(slide, checkpoint, mpp, tissue)
        others = {
            "all weights": Predictor(slide, shuffled(checkpoint, ""), mpp, tissue),
            "decoder": Predictor(slide, shuffled(checkpoint, "image head."), mpp, tissue),
        }
        spots, labels = measured.labeled_spots(), measured.labels
        target = target_from_spots(spots, slide.width, slide.height, name)
        depth_out, found = fit_depth_out(predictor, target, labels.counts.depth)
        rows += [{"section": name, "spot": -1, "paint": args.paint} | row for row in found]
        wanted = regress_out_depth(labels.values, labels.counts.depth), labels.values
        for place in places:
            x, y = spots.xy[place]
            spot = Spot(predictor, x, y, depth_out)
            truth = tuple(w[place, columns] for w in wanted)
            where = {"section": name, "spot": int(place), "paint": args.paint}
            own = curves(spot, genes, truth, random, args.paint)
            for row in own:
                row["gene"] = checkpoint.panel.symbols[row["gene"]]
            if args.paint == "mean":
                own += sanity(spot, {k: Spot(p, x, y) for k, p in others.items()}, genes)
            rows += [where | row for row in own]
            print(name, int(place), flush=True)
    return rows


def fit_depth_out(
    predictor: Predictor, target: Any, depth: np.ndarray
) -> tuple[DepthOut, list[dict[str, Any]]]:
    """From the predictions of a section; and how much of the measured depth is in them."""
    prediction = predict(predictor, target)
    width = predictor.network.config.members_dim
    taken = DepthOut.fit(prediction.values, prediction.tokens[:, width:])
    left = taken(prediction.values, prediction.tokens[:, width:])
    rows = []
    for which, values in (("prediction", prediction.values), ("depth taken out", left)):
        r = gene_pcc(values, np.repeat(depth[:, None], values.shape[1], axis=1))
        rows.append({"part": "section", "map": which, "depth": float(np.nanmean(np.abs(r)))})
    return taken, rows


def curves(
    spot: Spot,
    genes: list[int],
    truth: tuple[np.ndarray, ...],
    random: np.random.Generator,
    paint: str,
) -> list[dict[str, Any]]:
    """truth : measured values of the genes, for each of KINDS."""
    rows = []
    spread = spot.predictor.network.label_std.numpy()
    parts: dict[str, tuple[int, np.ndarray | None, Ask]] = {
        "patch": (DEFAULT_BLOCKS**2, STEPS, lambda keep: without_blocks(spot, keep, paint)),
        "neighbours": (len(neighbours(spot)), None, lambda keep: without_tiles(spot, keep)),
    }
    for part, (count, steps, ask) in parts.items():
        if part == "neighbours" and paint != "mean":
            continue
        steps = np.arange(1, count) if steps is None else steps
        chance = [random.permutation(count) for _ in range(RANDOM)]
        maps = [all_maps(spot, part, gene) for gene in genes]
        ends = spot.values(ask(np.stack([np.ones(count, bool), np.zeros(count, bool)])))
        drawn = [spot.values(ask(remaining(order, steps))) for order in chance]
        asked: dict[bytes, tuple[np.ndarray, ...]] = {}

        def run(
            order: np.ndarray,
            ask: Ask = ask,
            steps: np.ndarray = steps,
            asked: dict[bytes, tuple[np.ndarray, ...]] = asked,
        ) -> tuple[np.ndarray, ...]:
            """Of each kind the (S, G) values as parts go, in the order; run once."""
            key = order.tobytes()
            if key not in asked:
                asked[key] = spot.values(ask(remaining(order, steps)))
            return asked[key]

        for i, gene in enumerate(genes):
            signed, unsigned = maps[i]
            signed = signed | {"of another gene": next(iter(maps[i - 1][0].values()))}
            made = {name: {"part": part, "gene": gene, "map": name} for name in signed | unsigned}
            made["random"] = {"part": part, "gene": gene, "map": "random"}
            for kind, label in enumerate(KINDS):
                norm = spread[gene]
                base, bare = ends[kind][:, gene] / norm
                wanted = truth[kind][i] / norm
                by_chance = np.stack([d[kind][:, gene] for d in drawn]) / norm
                change = np.abs(by_chance - base).mean()
                error = ((by_chance - wanted) ** 2).mean()
                pair = (by_chance[0] - by_chance[1]).mean() / 2
                made["random"][f"{label}gain"] = float(pair)
                for name, values in (signed | unsigned).items():
                    row = made[name]
                    row[f"{label}all"] = float(base - bare)
                    if name in signed:
                        orders = run(np.argsort(-values)), run(np.argsort(values))
                        down, up = (v[kind][:, gene] / norm for v in orders)
                        row[f"{label}gain"] = float((up - down).mean() / 2)
                        if not kind:
                            row["down"] = np.round(down - base, 4).tolist()
                            row["up"] = np.round(up - base, 4).tolist()
                    if name not in SIGNED_ONLY:
                        sizes = np.abs(values) if name in signed else values
                        largest = run(np.argsort(-sizes, kind="stable"))[kind][:, gene] / norm
                        row[f"{label}change"] = float(np.abs(largest - base).mean() - change)
                        row[f"{label}error"] = float(((largest - wanted) ** 2).mean() - error)
            rows += made.values()
    return rows


def all_maps(spot: Spot, part: str, gene: int) -> tuple[dict[str, Any], dict[str, Any]]:
    if part == "patch":
        return spot.patch_maps(gene)
    signed, unsigned = spot.tile_maps(gene)
    at = neighbours(spot)
    return {k: v[at] for k, v in signed.items()}, {k: v[at] for k, v in unsigned.items()}


def neighbours(spot: Spot) -> np.ndarray:
    """(K',) which tiles are on the slide and not the patch itself."""
    mask = spot.given.neighbor_mask.numpy().copy()
    mask[len(mask) // 2] = False
    return np.flatnonzero(mask)


def without_blocks(spot: Spot, keep: np.ndarray, paint: str) -> torch.Tensor:
    blocks = keep.reshape(-1, DEFAULT_BLOCKS, DEFAULT_BLOCKS)
    colour = {"mean": compute_mean_color, "blur": blurred}[paint]
    return compute_occluded_tokens(spot.predictor.prediction_context, spot.given, blocks, colour)


def without_tiles(spot: Spot, keep: np.ndarray) -> torch.Tensor:
    given = spot.given
    near = given.neighbor_features.repeat(len(keep), 1, 1)
    rows, gone = np.nonzero(~keep)
    near[rows, neighbours(spot)[gone]] = given.mean_feature
    with torch.no_grad():
        place = compute_global_token(
            spot.predictor.prediction_context,
            given,
            given.neighbor_features[len(given.neighbor_features) // 2],
        )
        return fuse_tokens(
            spot.predictor.prediction_context, given, spot.coverings.target_tokens, near, place
        )


def sanity(spot: Spot, others: dict[str, Spot], genes: list[int]) -> list[dict[str, Any]]:
    """Do the maps follow the weights? Rank correlation with those of a network of shuffled ones
    (Adebayo et al. 2018, arXiv 1810.03292)."""
    from scipy.stats import spearmanr

    rows = []
    at = neighbours(spot)
    for gene in genes:
        own = attribute_gene(spot.predictor.prediction_context, spot.coverings, gene)
        for which, other in others.items():
            theirs = attribute_gene(other.predictor.prediction_context, other.coverings, gene)
            for part, a, b in (
                ("patch", own.blocks.ravel(), theirs.blocks.ravel()),
                ("neighbours", own.tiles.ravel()[at], theirs.tiles.ravel()[at]),
            ):
                rows.append(
                    {
                        "part": part,
                        "gene": spot.predictor.checkpoint.panel.symbols[gene],
                        "map": f"shuffled: {which}",
                        "rank": float(spearmanr(a, b)[0]),
                        "rank of sizes": float(spearmanr(np.abs(a), np.abs(b))[0]),
                    }
                )
    return rows


def shuffled(checkpoint: Any, only: str) -> Any:
    """The checkpoint with the numbers within each weight in another order.

    only : prefixes of weights of the networks; all, and those of the linear path, if empty.
    """
    import copy

    network = copy.deepcopy(checkpoint.network)
    order = torch.Generator().manual_seed(0)
    linear = None if only else get_linear_path(network)
    for member in (*list_members(network), *([] if linear is None else [linear])):
        for name, weight in member.named_parameters():
            if not only or name.startswith(tuple(only.split())):
                flat = weight.data.flatten()
                weight.data = flat[torch.randperm(len(flat), generator=order)].view_as(weight)
    return replace(checkpoint, network=network, sha256="")


if __name__ == "__main__":
    main()
