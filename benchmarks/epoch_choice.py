"""What choosing the number of epochs by depth-partial PCC changes, against PCC-ALL.

    python benchmarks/bundled_checkpoint.py read --data DATA --weights lite0.safetensors
    python benchmarks/epoch_choice.py --data DATA --gene-text genes.safetensors -o epochs.json

For each of C2 to C5: the numbers of epochs that both rules choose on the validation section, as in
the cross-validation (early stopping included), and the depth-partial PCC of one network on the
left-out section after that many epochs on all three others. The network alone, without the linear
path. About four minutes of a core for each section.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bundled_checkpoint import NAMES, add_input_options, load_inputs

from napari_dkan.training.data.prepared_section import encode_section, fit_section_encoder
from napari_dkan.training.evaluation.folds import make_folds
from napari_dkan.training.fit.depth_residuals import remove_depth
from napari_dkan.training.fit.fit_callback import (
    EpochRecord,
    find_best_epoch,
    is_patience_exhausted,
)
from napari_dkan.training.fit.fit_model import fit_network
from napari_dkan.training.train import TrainingInputs


def curve_of(
    inputs: TrainingInputs, training: Sequence[str], test: Sequence[str], epochs: int
) -> tuple[EpochRecord, ...]:
    """Scores on the test sections after each epoch."""
    sections = {s.name: s for s in inputs.sections}
    settings = replace(inputs.settings, epochs=epochs, patience=epochs)
    learnt, tested = ([sections[n] for n in names] for names in (training, test))
    encoder = fit_section_encoder(learnt, settings.dim, settings.patch_um)
    encoded, held_out = (
        [encode_section(s, encoder) for s in remove_depth(group)] for group in (learnt, tested)
    )
    return fit_network(encoded, inputs.gene_text, settings, held_out).curve


def chosen(curve: Sequence[EpochRecord], patience: int, by_pcc_all: bool) -> int:
    """The epoch that a rule chooses, with its early stopping."""
    if by_pcc_all:  # a curve without depth-partial PCC is compared by PCC-ALL
        curve = [replace(e, val_partial=math.nan) for e in curve]
    for stop in range(1, len(curve)):
        if is_patience_exhausted(curve[:stop], patience):
            return find_best_epoch(curve[:stop])
    return find_best_epoch(curve)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_input_options(parser)
    parser.add_argument("--only", nargs="*", default=NAMES)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    inputs = load_inputs(args)
    settings, rows = inputs.settings, []
    for fold in make_folds(inputs.sections):
        if fold.name not in args.only:
            continue
        curve = curve_of(inputs, fold.training_without_validation, fold.validation, settings.epochs)
        plain, partial = (chosen(curve, settings.patience, rule) for rule in (True, False))
        tested = curve_of(inputs, fold.training, fold.test, max(plain, partial))
        row = {
            "section": fold.name,
            "by_pcc_all": plain,
            "by_depth_partial": partial,
            "depth_partial_by_pcc_all": round(tested[plain - 1].val_partial, 4),
            "depth_partial_by_depth_partial": round(tested[partial - 1].val_partial, 4),
            "validation": [[round(e.val_pcc, 4), round(e.val_partial, 4)] for e in curve],
            "test": [round(e.val_partial, 4) for e in tested],
        }
        rows.append(row)
        print({k: v for k, v in row.items() if not isinstance(v, list)}, flush=True)
        args.out.write_text(json.dumps({"seed": settings.seed, "folds": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
