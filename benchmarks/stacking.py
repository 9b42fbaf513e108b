"""Is a weighted mean of several methods better than DKAN? "Stacking" of docs/methods.md.

    python benchmarks/stacking.py --data DATA --run build/bundled/methods-run --page docs/methods.md

From the folds of `benchmarks/bundled_checkpoint.py crossval --methods ...` (the commands are at the
head of benchmarks/methods.py); nothing is trained. Weights that are fitted on the other three test
sections favour the stack, since the networks that predicted those have seen the section that is
tested; weights that are fitted on the test section itself are an upper bound and no estimate.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from methods import BASELINES, difference, interval, replace_page_part, table
from numpy.typing import NDArray
from scipy.optimize import minimize, nnls

from napari_dkan.expression.label_scale import labels_from_section
from napari_dkan.expression.panel import read_panel
from napari_dkan.model.methods.method_configs import DKAN_METHOD, TITLES
from napari_dkan.training.data.section_loading import DEFAULT_LABEL_SCALE, read_section_data
from napari_dkan.training.depth_metrics import regress_out_depth
from napari_dkan.training.depth_reference import DepthReference
from napari_dkan.training.evaluation.crossval_result import CrossValidationResult, FoldResult
from napari_dkan.training.evaluation.folds import Fold
from napari_dkan.training.evaluation.paired_differences import compute_paired_differences
from napari_dkan.training.fit.run_folder import RunFolder
from napari_dkan.training.train_settings import FoldUnit

BEGIN, END = "<!-- stacking: begin -->", "<!-- stacking: end -->"
SECTIONS = ("C2", "C3", "C4", "C5")
PREDICTORS = ("ridge", "ridge_stain")  # baselines that may be in a stack

Array = NDArray[np.float64]


def load_folds(data: Path, run: Path) -> CrossValidationResult:
    panel = read_panel(data / "genes" / "panel_her2st_250.txt")
    references, folds = {}, []
    for section in read_section_data(data, SECTIONS):
        counts = labels_from_section(section, panel, DEFAULT_LABEL_SCALE).counts
        references[str(section.uns["section"])] = DepthReference(counts)
    for name in SECTIONS:
        arrays = RunFolder(run).load_result(name)
        if arrays is None:
            raise SystemExit(f"{run} has no finished fold {name}; see the head of this script.")
        others = tuple(other for other in SECTIONS if other != name)
        folds.append(FoldResult.from_arrays(Fold(name, (name,), others, ()), arrays))
    return CrossValidationResult(FoldUnit.section, tuple(folds), references)


@dataclass(frozen=True)
class Products:
    """Sums over the spots of products of depth residuals, of M methods and G genes.

    Attributes
    ----------
    methods : (G, M, M) array
        Of the predictions of two methods.
    label : (G, M) array
        Of prediction and label.
    square : (G,) array
        Of the label with itself.
    """

    methods: Array
    label: Array
    square: Array

    def pcc(self, weights: Array) -> tuple[float, Array]:
        """Depth-partial PCC of the weighted mean, averaged over genes, and its gradient (M,)."""
        along = self.methods @ weights
        norm = np.sqrt((along @ weights) * self.square)
        usable = norm > 1e-9
        along, norm, label = along[usable], norm[usable], self.label[usable]
        pcc = label @ weights / norm
        slope = label / norm[:, None] - along * (pcc * self.square[usable] / norm**2)[:, None]
        return float(pcc.mean()), slope.mean(axis=0)


def multiply(
    result: CrossValidationResult, fold: FoldResult, seed: int, of: Sequence[str]
) -> Products:
    (name,) = fold.fold.test
    depth = result.references[name].depth
    predicted = np.stack(
        [regress_out_depth(prediction(fold, m, seed), depth) for m in of]
    )  # (M, N, G)
    label = regress_out_depth(fold.labels[name], depth)
    return Products(
        np.einsum("mng,kng->gmk", predicted, predicted),
        np.einsum("mng,ng->gm", predicted, label),
        np.einsum("ng,ng->g", label, label),
    )


def prediction(fold: FoldResult, method: str, seed: int) -> Array:
    by_seed = fold.predictions[method]  # a baseline has one, of the first seed
    return np.asarray(by_seed.get(seed, next(iter(by_seed.values())))[fold.fold.name], np.float64)


def fit_weights(products: Sequence[Products], of: Sequence[str]) -> Array:
    """Weights (M,) of no negative sign with the best depth-partial PCC over these predictions."""

    def loss(weights: Array) -> tuple[float, Array]:
        each = [p.pcc(weights) for p in products]
        return -float(np.mean([v for v, _ in each])), -np.mean([s for _, s in each], axis=0)

    starts = np.where(np.array(of) == DKAN_METHOD, 1.0, 0.05), np.ones(len(of))
    tried = [
        minimize(loss, start, jac=True, bounds=[(0, None)] * len(of), method="L-BFGS-B")
        for start in starts
    ]
    best = min(tried, key=lambda found: found.fun)
    return np.asarray(best.x / best.x.sum())


def fit_weights_by_gene(products: Sequence[Products]) -> Array:
    """Weights (M, G) of no negative sign by least squares of the depth residuals."""
    together = sum(p.methods for p in products), sum(p.label for p in products)
    each = []
    for square, label in zip(*together, strict=True):
        root = np.linalg.cholesky(square + 1e-9 * np.trace(square) * np.eye(len(square)))
        each.append(nnls(root.T, np.linalg.solve(root, label))[0])
    return np.stack(each, axis=1)


def add_stacks(
    result: CrossValidationResult,
) -> tuple[CrossValidationResult, dict[str, Mapping[str, Array]]]:
    """The result with the stacks as further methods, and the fitted weights by stack and fold."""
    trained = list(result.trained_methods)
    seeds = list(result.folds[0].predictions[DKAN_METHOD])
    everything = [*trained, *PREDICTORS]
    equal = {
        "DKAN and TRIPLEX": [DKAN_METHOD, "triplex"],
        "DKAN and ridge": [DKAN_METHOD, "ridge"],
        "DKAN, TRIPLEX and ridge": [DKAN_METHOD, "triplex", "ridge"],
        "all methods and ridge": [*trained, "ridge"],
    }
    products = {
        f.fold.name: [multiply(result, f, seed, everything) for seed in seeds] for f in result.folds
    }
    fitted: dict[str, dict[str, Array]] = {"other sections": {}, "test section": {}}
    folds = []
    for fold in result.folds:
        name = fold.fold.name
        others = [p for other in SECTIONS if other != name for p in products[other]]
        fitted["other sections"][name] = fit_weights(others, everything)
        fitted["test section"][name] = fit_weights(products[name], everything)
        new = {
            title: {s: {name: np.mean([prediction(fold, m, s) for m in of], axis=0)} for s in seeds}
            for title, of in equal.items()
        }
        for title, weights in fitted.items():
            new[title] = {
                s: {
                    name: np.tensordot(
                        weights[name], [prediction(fold, m, s) for m in everything], axes=1
                    )
                }
                for s in seeds
            }
        by_gene = fit_weights_by_gene(others)
        new["by gene"] = {
            s: {
                name: sum(
                    w * prediction(fold, m, s) for m, w in zip(everything, by_gene, strict=True)
                )
            }
            for s in seeds
        }
        both = np.mean([prediction(fold, DKAN_METHOD, s) for s in seeds], axis=0)
        new["both seeds"] = {seeds[0]: {name: both}}
        folds.append(replace(fold, predictions=fold.predictions | new))
    return replace(result, folds=tuple(folds)), fitted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, default=Path("build/bundled/methods-run"))
    parser.add_argument("--page", type=Path)
    args = parser.parse_args()
    result, fitted = add_stacks(load_folds(args.data, args.run))
    paired = compute_paired_differences(result)
    names = {
        DKAN_METHOD: ("DKAN alone", "-"),
        "both seeds": ("DKAN, the networks of both seeds", "equal"),
        **{m: (m, "equal") for m in result.folds[0].predictions if m[:4] in ("DKAN", "all ")},
        "other sections": (
            "all methods and two ridges",
            "one a method, from the other three test sections",
        ),
        "by gene": ("the same", "of each gene, from the other three test sections"),
        "test section": ("the same: an upper bound", "one a method, from the test section itself"),
    }
    titles = TITLES | BASELINES
    everything = [*result.trained_methods, *PREDICTORS]
    part = "\n".join(
        [
            *table(
                ("mean of", "weights", "depth-partial PCC", "minus DKAN alone"),
                [
                    (title, weights, interval(paired["mean"][m]),
                     difference(paired["minus dkan"].get(m)))
                    for m, (title, weights) in names.items()
                ],
            ),
            "",
            *(
                f"- Weights, {title}: " + "; ".join(
                    f"{name} " + ", ".join(
                        f"{titles[m]} {w:.2f}"
                        for m, w in zip(everything, weights, strict=True) if w >= 0.005
                    )
                    for name, weights in fitted[key].items()
                ) + "."
                for key, (_, title) in names.items() if key in fitted
            ),
        ]
    )  # fmt: skip
    if args.page is None:
        print(part)
    else:
        replace_page_part(args.page, part, BEGIN, END)


if __name__ == "__main__":
    main()
