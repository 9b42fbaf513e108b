"""The four checkpoints that never saw one of C2 to C5: what reliability, "why here" and
fine-tuning are measured with.

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

from napari_dkan.expression.panel import read_panel
from napari_dkan.model import save_checkpoint
from napari_dkan.training.data.section_loading import load_sections
from napari_dkan.training.gene_text import read_gene_text
from napari_dkan.training.train import train_on_sections
from napari_dkan.training.train_settings import TrainSettings, apply_setting_changes

NAMES = ("C2", "C3", "C4", "C5")
REPORT = Path("docs/reports/her2-breast-crossval.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--gene-text", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=NAMES, help="sections to leave out")
    parser.add_argument("--set", nargs="*", action="extend", default=[], dest="changes")
    parser.add_argument("-o", "--out", type=Path, default=Path("build/folds"))
    args = parser.parse_args()
    settings = apply_setting_changes(TrainSettings(), args.changes)
    panel = read_panel(args.data / "genes" / "panel_her2st_250.txt")
    text = read_gene_text(args.gene_text, panel, settings.text_dim)
    epochs = {
        f["name"]: min(settings.epochs, f["epochs"][str(settings.seed)])
        for f in json.loads(REPORT.read_text())["folds"]
    }
    args.out.mkdir(parents=True, exist_ok=True)
    sections = load_sections(args.data, NAMES, panel, settings, log=print)
    for left_out in args.only:
        path = args.out / f"without-{left_out}.safetensors"
        if path.is_file():
            continue
        checkpoint = train_on_sections(
            [s for s in sections if s.name != left_out],
            panel,
            text,
            settings=replace(settings, epochs=epochs[left_out]),
            crossval=False,
            card={"title": f"HER2+ breast without {left_out}"},
        )
        save_checkpoint(path, checkpoint, half=True)
        print(f"wrote {path}", flush=True)


if __name__ == "__main__":
    main()
