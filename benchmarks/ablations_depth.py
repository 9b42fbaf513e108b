"""Ablations of encoder, labels and losses by the depth-partial figure.

    python benchmarks/bundled_checkpoint.py read --data DATA --weights lite0.safetensors
    python benchmarks/ablations_depth.py --data DATA --gene-text genes.safetensors --only NAME
    python benchmarks/ablations_depth.py --data DATA --table

Each variant is trained on two of the sections C2 to C5 and tested on the other two: single
networks, the same seed and number of epochs, which no test section influences. A test section is
read as it is, and in the other stains of its own views (moved by up to 46 um too), which no
network of that pair was trained on. *Thinned*: its counts thinned to a median total of 150.

The choice among variants for a left-out section can be made without it: by the mean over the pairs
and test sections in which it does not occur, printed below the table.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bundled_checkpoint import NAMES, add_input_options, load_inputs

from napari_dkan.expression.count_thinning import thin_counts
from napari_dkan.expression.label_scale import PanelCounts
from napari_dkan.training.baselines import StainRidge, fit_ridge_cv, multi_scale_tile_features
from napari_dkan.training.data.prepared_section import (
    PreparedSection,
    encode_section,
    fit_section_encoder,
)
from napari_dkan.training.depth_metrics import depth_partial_pcc
from napari_dkan.training.fit.depth_residuals import remove_depth
from napari_dkan.training.fit.fit_model import fit_model
from napari_dkan.training.metrics import FloatingArray, gene_pcc
from napari_dkan.training.train import TrainingInputs

PAIRS = (("C2", "C3"), ("C4", "C5"), ("C3", "C5"), ("C2", "C4"), ("C2", "C5"), ("C3", "C4"))
EPOCHS = 40
THINNED_TO, SEED = 150, 2021
STAIN_NUMBERS = 104

# Predicts sections from what is fitted on the training sections.
Fit = Callable[[TrainingInputs, list[PreparedSection]], Callable[[PreparedSection], FloatingArray]]
Change = Callable[[PreparedSection], PreparedSection]


@dataclass(frozen=True)
class Variant:
    """One line of the table."""

    name: str
    what: str
    fit: Fit
    change: Change = lambda section: section  # of every section, before anything is fitted


def network(**changes: Any) -> Fit:
    """A single network with changed settings."""

    def fit(
        inputs: TrainingInputs, training: list[PreparedSection]
    ) -> Callable[[PreparedSection], FloatingArray]:
        settings = replace(inputs.settings, members=1, **changes)
        frozen = training[0].frozen_features
        if frozen is not None:
            settings = replace(settings, features=frozen.spec.dimension)
        return fit_model(training, inputs.gene_text, settings, EPOCHS).predict

    return fit


def ridge(residual: bool, stain: bool = False) -> Fit:
    """Ridge regression at three scales, with a penalty chosen on the training sections."""

    def fit(
        inputs: TrainingInputs, training: list[PreparedSection]
    ) -> Callable[[PreparedSection], FloatingArray]:
        encoder = fit_section_encoder(training, inputs.settings.dim, inputs.settings.patch_um)
        labelled = remove_depth(training) if residual else training
        encoded = [encode_section(s, encoder) for s in labelled]
        if stain:
            predict = StainRidge().fit(encoded)
            return lambda section: predict(encode_section(section, encoder))

        def features(e: Any) -> FloatingArray:
            x = multi_scale_tile_features(e)
            return (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-6)

        model = fit_ridge_cv(
            [features(e) for e in encoded], [e.section.labels.numpy() for e in encoded]
        )
        return lambda section: model.predict(features(encode_section(section, encoder)))

    return fit


def keep_numbers(rows: slice) -> Change:
    """Keep some of the numbers of a tile."""

    def change(section: PreparedSection) -> PreparedSection:
        frozen = section.frozen_features
        assert frozen is not None and frozen.parts is not None
        spec = replace(frozen.parts.spec, dimension=len(range(256)[rows]), parts=())
        parts = _SomeNumbers(spec)
        return replace(
            section,
            frozen_features=replace(
                frozen,
                spec=spec,
                neighbor_features=frozen.neighbor_features[..., rows],
                target_features=frozen.target_features[..., rows],
                parts=parts,  # type: ignore[arg-type]
            ),
            views=tuple(
                replace(v, tile_features=v.tile_features[..., rows])
                for v in section.views
                if v.tile_features is not None
            ),
        )

    return change


class _SomeNumbers(torch.nn.Module):
    """Stands for the parts of an encoder whose numbers are there already."""

    def __init__(self, spec: Any) -> None:
        super().__init__()
        self.spec = spec


def without_views(section: PreparedSection) -> PreparedSection:
    return replace(section, views=())


def same_stain_views(section: PreparedSection) -> PreparedSection:
    return replace(section, views=section.views[::3])  # every third keeps the stain


VARIANTS = (
    Variant("full", "the defaults, one network", network()),
    Variant("other-seed", "another seed: what chance alone does", network(seed=2022)),
    Variant("usual-labels", "trained on the labels, depth included", network(depth_residual=False)),
    Variant(
        "stain-only",
        "stain statistics alone, no middle layers",
        network(),
        keep_numbers(slice(0, STAIN_NUMBERS)),
    ),
    Variant(
        "layers-only",
        "middle layers alone, no stain statistics",
        network(),
        keep_numbers(slice(STAIN_NUMBERS, None)),
    ),
    Variant("absolute", "features not relative to their slide", network(standardise=False)),
    Variant("no-views", "no views at all", network(), without_views),
    Variant(
        "same-stain", "views moved only, in the section's own stain", network(), same_stain_views
    ),
    Variant("no-contrastive", "no contrastive loss", network(contrastive_factor=0.0)),
    Variant(
        "absolute-no-contrastive",
        "neither contrastive loss nor features relative to their slide",
        network(standardise=False, contrastive_factor=0.0),
    ),
    Variant("contrastive-0.3", "contrastive loss of weight 0.3", network(contrastive_factor=0.3)),
    Variant("no-correlation", "no correlation loss", network(correlation=0.0)),
    Variant("dropout-0.5", "more dropout", network(dropout=0.5)),
    Variant("wide", "width 96", network(dim=96)),
    Variant("whole-depth", "all of the predicted depth restored", network(depth_share=1.0)),
    Variant("no-depth", "none of it: residuals as they are", network(depth_share=0.0)),
    Variant("with-ridge", "mean with a ridge of weight 0.3", network(ridge_share=0.3)),
    Variant("ridge", "ridge on all numbers, usual labels", ridge(residual=False)),
    Variant("ridge-residual", "the same on residual labels", ridge(residual=True)),
    Variant("ridge-stain", "ridge on stain statistics, usual labels", ridge(False, stain=True)),
)
TRADES = (
    "whole-depth",
    "no-depth",
)  # depth-partial figure against PCC-ALL, not to be chosen by one
FIGURES = ("partial", "restained", "thinned", "pcc", "pcc_thinned", "mse")


def measure(variant: Variant, inputs: TrainingInputs, pairs: int) -> dict[str, Any]:
    """The figures of every test section of every pair."""
    start, scores = time.perf_counter(), {}
    sections = {s.name: variant.change(s) for s in inputs.sections}
    originals = {s.name: s for s in inputs.sections}
    for pair in PAIRS[:pairs]:
        predict = variant.fit(inputs, [sections[n] for n in pair])
        for name in NAMES:
            if name in pair:
                continue
            restained = [
                variant.change(s) for i, s in enumerate(views_as_sections(originals[name])) if i % 3
            ]
            scores[f"{'+'.join(pair)} on {name}"] = score(
                originals[name],
                np.asarray(predict(sections[name])),
                [np.asarray(predict(s)) for s in restained],
            )
    return {
        "variant": variant.name,
        "pairs": pairs,
        "minutes": round((time.perf_counter() - start) / 60, 1),
        "scores": scores,
    }


def views_as_sections(section: PreparedSection) -> list[PreparedSection]:
    """The views of a section, each as a section of its own."""
    frozen = section.frozen_features
    assert frozen is not None
    middle = frozen.neighbor_features.shape[1] // 2
    return [
        replace(
            section,
            frozen_features=replace(
                frozen,
                neighbor_features=view.tile_features,
                target_features=view.tile_features[:, middle],
            ),
            statistics=view.statistics,
            mask=view.mask,
            views=(),
        )
        for view in section.views
        if view.tile_features is not None
    ]


def score(
    section: PreparedSection, predicted: FloatingArray, restained: Sequence[FloatingArray]
) -> dict[str, float]:
    counts = section.counts
    assert counts is not None
    labels = section.labels.numpy()
    fraction = THINNED_TO / counts.median_total
    thinned = thin_counts(counts.values, fraction, np.random.default_rng(SEED))
    rows = np.flatnonzero(thinned.sum(axis=1) > 0)
    shallow = PanelCounts(thinned[rows], counts.array[rows], counts.scale)
    values = {
        "partial": depth_partial_pcc(predicted, labels, counts.depth),
        "restained": np.stack([depth_partial_pcc(p, labels, counts.depth) for p in restained]),
        "thinned": depth_partial_pcc(predicted[rows], shallow.labels(), shallow.depth),
        "pcc": gene_pcc(predicted, labels),
        "pcc_thinned": gene_pcc(predicted[rows], shallow.labels()),
        "mse": (predicted - labels) ** 2,
    }
    return {name: round(float(np.nanmean(v)), 5) for name, v in values.items()}


def table(lines: dict[str, dict[str, Any]]) -> str:
    """The finished variants as a Markdown table, differences paired by test section."""
    rows = [
        "| variant | what | depth-partial | difference | wins | restained | thinned | PCC-ALL "
        "| PCC-ALL thinned | MSE |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    base = _values(lines["full"], "partial")
    for variant in VARIANTS:
        line = lines.get(variant.name)
        if line is None:
            continue
        partial, *others = (_values(line, figure) for figure in FIGURES)
        apart, difference, wins = partial - base, "", ""
        if variant.name != "full":
            error = apart.std(ddof=1) / np.sqrt(len(apart))
            difference = f"{apart.mean():+.3f} ± {error:.3f}"
            wins = f"{int((apart > 0).sum())} of {len(apart)}"
        cells = " | ".join(
            f"{v.mean():.{4 if f == 'mse' else 3}f}"
            for f, v in zip(FIGURES[1:], others, strict=True)
        )
        rows.append(
            f"| `{variant.name}` | {variant.what} | {partial.mean():.3f} | {difference} | {wins} "
            f"| {cells} |"
        )
    return "\n".join(rows)


def nested(lines: dict[str, dict[str, Any]]) -> str:
    """The best variant for each left-out section, chosen without it."""
    out = []
    for left_out in NAMES:
        means = {
            name: np.mean(
                [s["partial"] for case, s in line["scores"].items() if left_out not in case]
            )
            for name, line in lines.items()
            if name not in TRADES
        }
        best = max(means, key=means.__getitem__)
        out.append(f"{left_out}: {best} {means[best]:.4f}, full {means['full']:.4f}")
    return "\n".join(out)


def _values(line: dict[str, Any], figure: str) -> np.ndarray:
    return np.array([score[figure] for score in line["scores"].values()])


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_input_options(parser)
    parser.add_argument("--pairs", type=int, default=3, help="pairs to train on, 1 to 6")
    parser.add_argument("--only", type=lambda text: text.split(","), default=[])
    parser.add_argument("--out", type=Path, default=Path("build/ablations-depth.jsonl"))
    parser.add_argument("--table", action="store_true", help="print what is finished and stop")
    args = parser.parse_args()
    lines = {}
    if args.out.is_file():
        read = map(json.loads, args.out.read_text(encoding="utf-8").splitlines())
        lines = {line["variant"]: line for line in read if line["pairs"] == args.pairs}
    if args.table:
        print(table(lines))
        print(nested(lines))
        return
    inputs = load_inputs(args)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for variant in VARIANTS:
        if variant.name in lines or (args.only and variant.name not in args.only):
            continue
        line = measure(variant, inputs, args.pairs)
        with args.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        mean = {figure: round(float(_values(line, figure).mean()), 4) for figure in FIGURES}
        print(f"{variant.name}: {mean}, {line['minutes']} min", flush=True)


if __name__ == "__main__":
    main()
