"""Whether auxiliary losses help a method: folds of C2 to C5 with each, against those without.

    python benchmarks/bundled_checkpoint.py read --data DATA --weights lite0.safetensors
    python benchmarks/auxiliary_losses.py --data DATA --gene-text genes.safetensors \
        --only C2 --variants none ranking=0.1 ranking=1
    python benchmarks/auxiliary_losses.py --data DATA --gene-text genes.safetensors --table

A variant is none, or names and weights with commas between them: ranking=1,mirror=0.1. Its folds
lie in --cache by its name, and one that is finished is not trained again. The table compares each
variant with `none` over the folds that both have, by seed and with the 95 % interval over blocks
of spots. A fold of TRIPLEX with two seeds takes about two minutes of a core.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bundled_checkpoint import NAMES, add_input_options, load_inputs

from napari_dkan.training.depth_metrics import depth_partial_pcc
from napari_dkan.training.evaluation import crossval
from napari_dkan.training.evaluation.crossval_result import CrossValidationResult, FoldResult
from napari_dkan.training.evaluation.folds import make_folds
from napari_dkan.training.evaluation.paired_differences import (
    compute_paired_differences,
    format_estimate,
)
from napari_dkan.training.fit.fit_model import SINGLE_DEVICE
from napari_dkan.training.fit.run_folder import RunFolder
from napari_dkan.training.metrics import nanmean
from napari_dkan.training.train import TrainingInputs
from napari_dkan.training.train_settings import FoldUnit, apply_setting_changes

NONE = "none"


def finish_folds(
    inputs: TrainingInputs, args: argparse.Namespace, variant: str
) -> dict[str, FoldResult]:
    """Train the folds that are asked for, and return all that are finished, by their section."""
    changes = [] if variant == NONE else [f"auxiliary.{change}" for change in variant.split(",")]
    settings = apply_setting_changes(inputs.settings, changes)
    folder = RunFolder(args.cache / "auxiliary" / args.method / variant)
    context = crossval._FoldContext(
        inputs.gene_text, settings, folder, SINGLE_DEVICE, lambda line: None
    )
    sections = {s.name: s for s in inputs.sections}
    finished = {}
    for fold in make_folds(inputs.sections):
        stored = folder.load_result(fold.name)
        if stored is None and not args.table and fold.name in args.only:
            result = crossval._run_fold(fold, sections, context, args.seeds, {}, [args.method])
            stored = result.to_arrays()
            folder.save_result(fold.name, stored)
            print(f"{variant}: {fold.name} finished", flush=True)
        if stored is not None:
            finished[fold.name] = FoldResult.from_arrays(fold, stored)
    return finished


def compare(
    inputs: TrainingInputs, method: str, plain: dict[str, FoldResult], other: dict[str, FoldResult]
) -> str:
    """Cells of the table: folds, figure with and without by seed, difference with its interval."""
    names = [name for name in plain if name in other]
    sections = {s.name: s for s in inputs.sections}
    folds = []
    for name in names:
        both = {NONE: plain[name].predictions[method], "other": other[name].predictions[method]}
        fold = plain[name]
        folds.append(FoldResult(fold.fold, {}, fold.labels, both))
    references = crossval._make_depth_references([f.fold for f in folds], sections)
    result = CrossValidationResult(FoldUnit.section, tuple(folds), references)
    paired = compute_paired_differences(result, [NONE])
    by_seed = [
        [
            nanmean(
                [
                    nanmean(depth_partial_pcc(p[n], fold.labels[n], references[n].depth))
                    for fold in folds
                    for n, p in [(fold.fold.test[0], fold.predictions[one][seed])]
                ]
            )
            for seed in folds[0].predictions[one]
        ]
        for one in (NONE, "other")
    ]
    cells = [", ".join(f"{score:.3f}" for score in scores) for scores in by_seed]
    difference = format_estimate(paired[f"minus {NONE}"]["other"])
    return f"{', '.join(names)} | {cells[0]} | {cells[1]} | {difference}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_input_options(parser)
    parser.add_argument("--method", default="triplex")
    parser.add_argument("--variants", nargs="*")
    parser.add_argument("--only", nargs="*", default=NAMES, help="sections that are left out")
    parser.add_argument("--seeds", nargs="*", type=int, default=[2021, 2022])
    parser.add_argument("--table", action="store_true", help="of what is there; nothing is trained")
    args = parser.parse_args()
    inputs = load_inputs(args)
    folder: Path = args.cache / "auxiliary" / args.method
    variants = args.variants or sorted(p.name for p in folder.iterdir())
    finished = {v: finish_folds(inputs, args, v) for v in dict.fromkeys([NONE, *variants])}
    print("| variant | left out | without, by seed | with | difference (95 % interval) |")
    print("|---|---|---|---|---|")
    for variant in variants:
        if variant != NONE and finished[variant]:
            print(
                f"| {variant} | {compare(inputs, args.method, finished[NONE], finished[variant])} |"
            )


if __name__ == "__main__":
    main()
