"""What each extra of the training is worth: the full setting beside it with one thing changed.

Trains on two of the sections C2 to C5 and tests on the other two, for a fixed number of epochs
that no test section has a say in. Every test section is also predicted under three changes of
stain that training did not draw. Each finished variant is a line in the file of results, and is
not run again. The settings of the package were chosen with such a table in view, on these very
sections: the differences tell what to keep, the scores themselves are not an estimate of anything.

    python benchmarks/ablations.py --data DATA --gene-text genes.safetensors --only no-views
    python benchmarks/ablations.py --data DATA --table

DATA holds her2st (or its folders) and genes; genes.safetensors is made by
`napari-dkan genes build --panel DATA/genes/panel_her2st_250.txt --tables DATA/genes -o ...`.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ablation_sections import NAMES, Bench
from ablation_variants import VARIANTS, Variant

from napari_dkan.expression.panel import read_panel
from napari_dkan.training.depth_metrics import depth_partial_pcc
from napari_dkan.training.metrics import gene_pcc, nanmean

# The first two and the first three test every section at least once.
PAIRS = (
    ("C2", "C3"),
    ("C4", "C5"),
    ("C3", "C5"),
    ("C2", "C4"),
    ("C2", "C5"),
    ("C3", "C4"),
)
BUILD = Path("build")
FIGURES = ("partial", "pcc", "changed", "mse")


def main() -> None:
    args = _arguments()
    done = _done(args)
    if args.table:
        print(table(done))
        return
    data = Path(args.data)
    panel = read_panel(data / "genes" / "panel_her2st_250.txt")
    bench = Bench(data, panel, Path(args.gene_text), Path(args.cache), args.epochs)
    for variant in VARIANTS:
        if variant.name in done or (args.only and variant.name not in args.only):
            continue
        line = measure(variant, bench, args.pairs)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        with args.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        mean = {figure: round(float(_values(line, figure).mean()), 4) for figure in FIGURES}
        print(f"{variant.name}: {mean}, {line['minutes']} min", flush=True)


def measure(variant: Variant, bench: Bench, pairs: int) -> dict[str, Any]:
    """Depth-partial PCC, PCC-ALL (also under changed stain) and MSE of each test section."""
    start = time.perf_counter()
    scores = {}
    for training in PAIRS[:pairs]:
        test = [n for n in NAMES if n not in training]
        for name, predicted in variant.run(bench, training, test).items():
            section = bench.looks()[name].plain
            labels, counts = section.labels.numpy(), section.counts
            assert counts is not None
            plain, *changed = [float(np.nanmean(gene_pcc(p, labels))) for p in predicted]
            scores[f"{'+'.join(training)} on {name}"] = {
                "pcc": round(plain, 5),
                "partial": round(nanmean(depth_partial_pcc(predicted[0], labels, counts.depth)), 5),
                "changed": round(float(np.mean(changed)), 5),
                "mse": round(float(np.mean((predicted[0] - labels) ** 2)), 6),
            }
    return {
        "variant": variant.name,
        "epochs": bench.epochs,
        "pairs": pairs,
        "minutes": round((time.perf_counter() - start) / 60, 1),
        "scores": scores,
    }


def table(done: dict[str, dict[str, Any]]) -> str:
    """The finished variants as a Markdown table, differences paired by test section."""
    lines = [
        "| variant | what | depth-partial PCC | difference | wins | PCC-ALL "
        "| PCC-ALL, changed stain | difference | MSE | min |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for variant in VARIANTS:
        line = done.get(variant.name)
        if line is None:
            continue
        partial, pcc, changed, mse = (_values(line, figure) for figure in FIGURES)
        base = done.get(variant.against)
        first, wins, second = "", "", ""
        if base is not None and base is not line:
            apart = partial - _values(base, "partial")
            first, wins = _apart(apart), f"{int((apart > 0).sum())} of {len(apart)}"
            second = _apart(changed - _values(base, "changed"))
        lines.append(
            f"| `{variant.name}` | {variant.what} | {partial.mean():.3f} | {first} | {wins} "
            f"| {pcc.mean():.3f} | {changed.mean():.3f} | {second} | {mse.mean():.4f} "
            f"| {line['minutes']} |"
        )
    return "\n".join(lines)


def _apart(difference: np.ndarray) -> str:
    """Mean and its standard error over the test sections, as if they were independent."""
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    return f"{difference.mean():+.3f} ± {error:.3f}"


def _values(line: dict[str, Any], figure: str) -> np.ndarray:
    """NaN where a run of an earlier version did not record it."""
    return np.array([score.get(figure, np.nan) for score in line["scores"].values()])


def _done(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Finished variants of these epochs and pairs by name."""
    if not args.out.is_file():
        return {}
    lines = [json.loads(text) for text in args.out.read_text(encoding="utf-8").splitlines()]
    asked = (args.epochs, args.pairs)
    return {x["variant"]: x for x in lines if (x["epochs"], x["pairs"]) == asked}


def _arguments() -> argparse.Namespace:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", required=True, help="folder with her2st and genes")
    parser.add_argument("--gene-text", default="genes.safetensors")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--pairs", type=int, default=len(PAIRS), help="pairs to train on, 1 to 6")
    parser.add_argument("--only", type=lambda text: text.split(","), help="NAME,NAME")
    parser.add_argument("--out", type=Path, default=BUILD / "ablations.jsonl")
    parser.add_argument("--cache", type=Path, default=BUILD / "ablations")
    parser.add_argument("--table", action="store_true", help="print what is finished and stop")
    args = parser.parse_args()
    unknown = set(args.only or ()) - {v.name for v in VARIANTS}
    if unknown:
        known = ", ".join(v.name for v in VARIANTS)
        parser.error(f"no variant {', '.join(sorted(unknown))}; there are {known}")
    return args


if __name__ == "__main__":
    main()
