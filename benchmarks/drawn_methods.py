"""All methods on drawn sections, where the truth is known: "On drawn sections" of docs/methods.md.

    python benchmarks/drawn_methods.py --page docs/methods.md

Four sections are drawn (tools/synthetic_section), each in its own stain, and every method is
cross-validated on their counts as on C2 to C5, with the tile encoder of the bundled checkpoint.
Predictions are then scored twice: against the labels that are made of the expected shares of the
genes by the same recipe, which is the truth, and against the labels of the counts, which no method
sees of its test section either. What a method has finished is in --folder; a second call trains
what is missing, so methods may be added. --only METHODS trains these and
prints what they know of the truth.
"""

from __future__ import annotations

import argparse
import json
import pickle
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from methods import (
    BASELINES,
    conclude,
    difference,
    interval,
    listed,
    number,
    replace_page_part,
    table,
)
from numpy.typing import NDArray

from napari_dkan.atomic_write import atomic_write, write_json
from napari_dkan.expression.count_thinning import thin_counts
from napari_dkan.expression.panel import Panel
from napari_dkan.expression.readers.layouts.her2st_sections import read_her2st_section
from napari_dkan.model import load_checkpoint
from napari_dkan.model.encoders.combined_encoder import CombinedEncoder
from napari_dkan.model.methods.method_configs import CONFIGS, TITLES
from napari_dkan.samples.bundled_checkpoints import find_bundled_checkpoint
from napari_dkan.training.data.frozen_features import FrozenEncoder
from napari_dkan.training.data.prepared_section import PreparedSection
from napari_dkan.training.data.section_loading import (
    DEFAULT_LABEL_SCALE,
    adapt_settings_to_sections,
    load_section,
    match_patch_to_encoder,
)
from napari_dkan.training.evaluation.crossval import cross_validate
from napari_dkan.training.evaluation.crossval_result import CrossValidationResult
from napari_dkan.training.evaluation.paired_differences import compute_paired_differences
from napari_dkan.training.fit.run_folder import RunFolder
from napari_dkan.training.gene_text import make_random_gene_text
from napari_dkan.training.run_provenance import collect_provenance
from napari_dkan.training.train import TrainingInputs
from napari_dkan.training.train_settings import TrainSettings, apply_setting_changes

sys.path.append(str(Path(__file__).resolve().parent.parent / "tools"))
from synthetic_section import GENE_WEIGHTS, draw_section, write_her2st_section

BEGIN, END = "<!-- drawn: begin -->", "<!-- drawn: end -->"
DRAWN_SEEDS = (21, 22, 23, 24)
SIZE_PX = 6400  # at 0.5 um: about 180 spots, as C2 to C5 have
KEPT = 0.02  # of the counts: what can be known of a gene is then as little as on C2 to C5
MEASUREMENT = "measurement"
ON_TISSUE = Path("docs/reports/her2-breast-methods.json")


def prepare_drawn(
    seed: int, settings: TrainSettings, panel: Panel, folder: Path
) -> tuple[PreparedSection, NDArray[np.float32]]:
    """A drawn section with thinned counts, and the labels that its expected shares give."""
    name, cached = f"X{seed}", folder / f"X{seed}.pickle"
    if cached.is_file():
        section, truth = pickle.loads(cached.read_bytes())
        return section, truth
    bundled = load_checkpoint(find_bundled_checkpoint("her2-breast")).build_tile_encoder()
    assert isinstance(bundled, CombinedEncoder)  # its parts are standardised anew in each fold
    encoder = FrozenEncoder(bundled.parts, torch.device("cpu"))
    drawn = draw_section(seed, SIZE_PX)
    if not (folder / name).is_dir():
        write_her2st_section(drawn, folder / name, name)
    data = read_her2st_section(folder / name, name)
    data.X = thin_counts(drawn.counts.astype(np.float32), KEPT, np.random.default_rng(seed))
    section = load_section(data, panel, match_patch_to_encoder(settings, encoder), encoder)
    rows = np.flatnonzero(~np.isin(data.obs_names, section.dropped_spots))
    exact = DEFAULT_LABEL_SCALE.normalize_and_log(drawn.expected_shares[rows])
    truth = DEFAULT_LABEL_SCALE.smooth(exact, section.positions.numpy())
    with atomic_write(cached) as temporary:
        temporary.write_bytes(pickle.dumps((section, truth)))
    print(f"{name}: {len(section)} spots, {len(section.dropped_spots)} without counts", flush=True)
    return section, truth


def run(
    args: argparse.Namespace,
) -> tuple[TrainingInputs, dict[str, NDArray[np.float32]], CrossValidationResult]:
    panel = Panel.from_symbols(GENE_WEIGHTS)
    settings = apply_setting_changes(TrainSettings(), args.changes)
    args.folder.mkdir(parents=True, exist_ok=True)
    drawn = [prepare_drawn(seed, settings, panel, args.folder) for seed in DRAWN_SEEDS]
    sections = [section for section, _ in drawn]
    settings = adapt_settings_to_sections(settings, sections)
    text = make_random_gene_text(panel, settings.text_dim, settings.seed)
    inputs = TrainingInputs(sections, panel, text, settings)
    path = args.folder / "run"
    config = inputs.to_config("crossval") | {"seeds": args.seeds}
    folder = RunFolder.create_or_resume(
        path, {"run": config}, resume=(path / "config.json").exists()
    )
    for count in range(1, len(args.methods) + 1):  # a method at a time, so that each is kept
        result = cross_validate(
            sections, text, settings, seeds=args.seeds, methods=args.methods[:count], run=folder,
            log=lambda line: print(line, flush=True),
        )  # fmt: skip
    truths = {section.name: truth for section, truth in drawn}
    return inputs, truths, result


def score(
    result: CrossValidationResult,
    wanted: dict[str, NDArray[np.float32]],
    genes: NDArray[np.intp],
    with_measurement: bool,
) -> dict[str, Any]:
    """Scores against these labels of the sections, over these genes."""
    folds = []
    for fold in result.folds:
        predictions = dict(fold.predictions)
        if with_measurement:
            predictions[MEASUREMENT] = {0: fold.labels}
        chosen = {
            method: {seed: take(sections, genes) for seed, sections in by_seed.items()}
            for method, by_seed in predictions.items()
        }
        labels = take({name: wanted[name] for name in fold.labels}, genes)
        folds.append(replace(fold, labels=labels, predictions=chosen))
    references = {name: replace(r, genes=genes) for name, r in result.references.items()}
    chosen_result = replace(result, folds=tuple(folds), references=references)
    mean: dict[str, dict[str, float | None]] = {}
    for method in chosen_result.methods:
        scores = [s.to_summary() for f in folds for s in chosen_result.fold_scores(f, method)]
        mean[method] = {
            name: round(float(np.mean([s[name] for s in scores])), 4)
            for name in ("depth_partial_pcc", "share_of_attainable", "ceiling", "pcc_all")
            if all(s[name] is not None for s in scores)
        }
    return {"mean": mean, "paired": compute_paired_differences(chosen_result)}


def take(
    sections: dict[str, NDArray[np.floating]], genes: NDArray[np.intp]
) -> dict[str, NDArray[np.floating]]:
    return {name: values[:, genes] for name, values in sections.items()}


def make_report(
    inputs: TrainingInputs,
    truths: dict[str, NDArray[np.float32]],
    result: CrossValidationResult,
    seeds: Sequence[int],
) -> dict[str, Any]:
    varies = np.min([np.ptp(truth, axis=0) for truth in truths.values()], axis=0) > 1e-6
    genes = np.flatnonzero(varies)  # the truth of a housekeeping gene is one number
    labels = {name: y for fold in result.folds for name, y in fold.labels.items()}
    counts = [s.counts for s in inputs.sections if s.counts is not None]
    return {
        "made": collect_provenance(str(__doc__).partition("\n\n")[2])
        | {
            "settings": inputs.settings.to_json(),
            "seeds": list(seeds),
            "sections": {s.name: len(s) for s in inputs.sections},
            "median_totals": {
                s.name: c.median_total for s, c in zip(inputs.sections, counts, strict=True)
            },
            "kept": KEPT,
            "genes": [inputs.panel.symbols[g] for g in genes],
        },
        "truth": score(result, truths, genes, with_measurement=True),
        "measured": score(result, labels, genes, with_measurement=False),
    }


def make_page_part(report: dict[str, Any], on_tissue: dict[str, Any]) -> str:
    made, truth, measured = report["made"], report["truth"], report["measured"]
    paired, names = truth["paired"], {MEASUREMENT: "the measurement itself"} | TITLES | BASELINES
    names = {m: title for m, title in names.items() if m in truth["mean"]}
    spots = list(made["sections"].values())
    totals = made["median_totals"].values()
    return "\n".join(
        [
            f"Sections {', '.join(made['sections'])} ({min(spots)} to {max(spots)} spots, a median "
            f"of {min(totals):.0f} to {max(totals):.0f} counts); seeds "
            f"{', '.join(map(str, made['seeds']))}; {made['settings']['members']} members; "
            f"{len(made['genes'])} genes; means over folds.",
            "",
            *table(
                ("method", "truth, beside depth", "minus ridge", "minus DKAN",
                 "measurement, beside depth", "share of the attainable"),
                [
                    (
                        title,
                        interval(paired["mean"].get(m)),
                        difference(paired["minus ridge"].get(m)),
                        difference(paired["minus dkan"].get(m)),
                        number(measured["mean"].get(m, {}).get("depth_partial_pcc")),
                        number(measured["mean"].get(m, {}).get("share_of_attainable")),
                    )
                    for m, title in names.items()
                    if m in paired["mean"]
                ],
            ),
            "",
            "The ceiling that is estimated from halves of the counts is "
            f"{measured['mean']['ridge']['ceiling']:.3f}; what it estimates is in the first row.",
            "",
            conclude(paired, {m: t for m, t in names.items() if m != MEASUREMENT}),
            compare_orders(paired, on_tissue["paired"], names),
        ]
    )  # fmt: skip


def compare_orders(drawn: dict[str, Any], on_tissue: dict[str, Any], names: dict[str, str]) -> str:
    """Say which differences have the same sign on drawn sections and on C2 to C5."""
    found: dict[str, list[str]] = {"same": [], "opposite": [], "not decided": []}
    for reference, title in (("ridge", "ridge"), ("dkan", "DKAN")):
        for method, (_, low, high) in drawn[f"minus {reference}"].items():
            _, other_low, other_high = on_tissue[f"minus {reference}"].get(method, (0, -1, 1))
            signs = sign(low, high), sign(other_low, other_high)
            kind = "not decided" if 0 in signs else "same" if signs[0] == signs[1] else "opposite"
            if method in on_tissue["mean"] and {method, reference} != {"ridge", "dkan"}:
                found[kind].append(f"{names[method]} to {title}")
    signs = [sign(*pairs["minus ridge"]["dkan"][1:]) for pairs in (drawn, on_tissue)]
    kind = "not decided" if 0 in signs else "same" if signs[0] == signs[1] else "opposite"
    found[kind].insert(0, "DKAN to ridge")
    return (
        f"- The sign of a difference beside that on C2 to C5: opposite for "
        f"{listed(found['opposite'])}; not decided on one of the two for "
        f"{listed(found['not decided'])}; the same for the other {len(found['same'])}."
    )


def sign(low: float, high: float) -> int:
    """1 or -1 for an interval above or below 0, else 0."""
    return int(low > 0) - int(high < 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path("build/drawn"))
    parser.add_argument("--seeds", type=lambda t: [int(s) for s in t.split(",")], default=[2021])
    parser.add_argument("--only", type=lambda t: t.split(","), help="train these, write nothing")
    parser.add_argument("--set", nargs="*", action="extend", default=[], dest="changes")
    parser.add_argument("-o", "--out", type=Path, default=Path("docs/reports/drawn-methods.json"))
    parser.add_argument("--page", type=Path)
    args = parser.parse_args()
    args.methods = args.only or list(CONFIGS)
    inputs, truths, result = run(args)
    report = make_report(inputs, truths, result, args.seeds)
    if args.only:
        for method in args.only:
            print(method, report["truth"]["mean"][method]["depth_partial_pcc"])
        return
    write_json(args.out, report)
    part = make_page_part(report, json.loads(ON_TISSUE.read_text(encoding="utf-8")))
    if args.page is None:
        print(part)
    else:
        replace_page_part(args.page, part, BEGIN, END)


if __name__ == "__main__":
    main()
