"""The four checkpoints that never saw one of C2 to C5: what reliability, "why here" and
fine-tuning are measured with.

    python benchmarks/bundled_checkpoint.py read --data DATA --weights lite0.safetensors
    python benchmarks/folds.py --data DATA --gene-text genes.safetensors -o build/folds

Each is trained as in the cross-validation that the card reports, for the epochs chosen there on
training sections alone; genes.safetensors as in docs/her2-breast.md. About seven minutes of a
core each; what is there already is not trained again. --set changes settings as in `napari-dkan
train`: single networks, and fewer epochs for all, with

    --set members=1 --set epochs=30 --set augmentation.views=4
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from bundled_checkpoint import NAMES, add_input_options, load_inputs

from napari_dkan.model import save_checkpoint
from napari_dkan.training.train import train_on_sections

REPORT = Path("docs/reports/her2-breast-crossval.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_input_options(parser)
    parser.add_argument("--only", nargs="*", default=NAMES, help="sections to leave out")
    parser.add_argument("-o", "--out", type=Path, default=Path("build/folds"))
    args = parser.parse_args()
    inputs = load_inputs(args)
    settings = inputs.settings
    epochs = {
        f["name"]: min(settings.epochs, f["epochs"][str(settings.seed)])
        for f in json.loads(REPORT.read_text())["folds"]
    }
    args.out.mkdir(parents=True, exist_ok=True)
    for left_out in args.only:
        path = args.out / f"without-{left_out}.safetensors"
        if path.is_file():
            continue
        checkpoint = train_on_sections(
            [s for s in inputs.sections if s.name != left_out],
            inputs.panel,
            inputs.gene_text,
            settings=replace(settings, epochs=epochs[left_out]),
            crossval=False,
            card={"title": f"HER2+ breast without {left_out}"},
        )
        save_checkpoint(path, checkpoint, half=True)
        print(f"wrote {path}", flush=True)


if __name__ == "__main__":
    main()
