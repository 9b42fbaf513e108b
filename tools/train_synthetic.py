"""Train the bundled synthetic checkpoint: draw sections, fit DKAN, compare it with ridge.

    python tools/train_synthetic.py -o synthetic.safetensors
    python tools/train_synthetic.py --quick -o quick.safetensors   # a minute, no good

Nothing here is real: the sections are drawn and their expression is simulated. The checkpoint
shows how the plugin works without network or data. Drawn sections are reused on the next run.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
from synthetic_section import (
    GENE_WEIGHTS,
    SAMPLE_SEED,
    SIMULATION_NOTICE,
    draw_section,
    write_her2st_section,
)

from napari_dkan.expression.label_scale import LabelScale
from napari_dkan.expression.panel import Panel, annotate_panel
from napari_dkan.expression.readers.layouts.her2st_sections import read_her2st_section
from napari_dkan.model import Checkpoint, PatchGeometry, save_checkpoint
from napari_dkan.model.ridge_regression import compute_multi_scale_features
from napari_dkan.samples.sample_sections import SamplePaths, synthetic_section_paths
from napari_dkan.slide import open_slide
from napari_dkan.training.baselines import fit_ridge_cv
from napari_dkan.training.data.prepared_section import (
    PreparedSection,
    encode_section,
    fit_section_encoder,
    prepare_section,
)
from napari_dkan.training.data.section_batches import make_section_batch, predict_batch
from napari_dkan.training.fit.build_reference import build_reference
from napari_dkan.training.fit.fit_callback import EpochRecord
from napari_dkan.training.fit.fit_model import fit_network
from napari_dkan.training.gene_text import make_random_gene_text
from napari_dkan.training.prediction_scores import score_predictions
from napari_dkan.training.train_settings import TrainSettings

# No smoothing: these maps are to show single glands, and simulated counts are not sparse.
SCALE = LabelScale(smoothing=1)
TRAIN, TEST = (1, 2, 3, 4, 5, 6, 8, 9, 10, 11), (12, 13)  # SAMPLE_SEED is in neither
assert SAMPLE_SEED not in TRAIN + TEST


def drawn_section(folder: Path, seed: int, size_px: int) -> SamplePaths:
    """Files of a section, drawn where they do not exist."""
    root, name = folder / f"{seed}-{size_px}px", f"X{seed}"
    if not root.is_dir():
        write_her2st_section(draw_section(seed, size_px), root, name)
    return synthetic_section_paths(root, name)


def prepare_drawn_section(
    paths: SamplePaths, panel: Panel, settings: TrainSettings
) -> PreparedSection:
    data = read_her2st_section(paths.root, paths.name)
    with open_slide(paths.image) as slide:
        return prepare_section(data, slide, panel, SCALE, settings.patch_um, settings.patch_px)


def annotated_panel() -> Panel:
    """The simulated genes, with ids and aliases where the gene tables exist."""
    panel = Panel.from_symbols(GENE_WEIGHTS)
    tables = Path(os.environ.get("NAPARI_DKAN_DATA", "")) / "genes"
    descriptions = tables / "human_gene_descriptions.tsv.gz"
    aliases = tables / "hgnc_alias_to_approved.tsv.gz"
    if descriptions.is_file() and aliases.is_file():
        return annotate_panel(panel, descriptions, aliases)
    return panel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--out", type=Path, default=Path("synthetic.safetensors"))
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--quick", action="store_true", help="small sections, two epochs")
    parser.add_argument(
        "--folder", type=Path, default=Path("build/synthetic"), help="where sections are drawn"
    )
    options = parser.parse_args()
    train, test = (TRAIN[:2], TEST[:1]) if options.quick else (TRAIN, TEST)
    size_px = 2000 if options.quick else 4608

    # One network and no stain augmentation: all sections are drawn in similar stains.
    settings = TrainSettings(
        epochs=2 if options.quick else options.epochs,
        members=1,
        standardise=False,
        augmentation=None,
        correlation=0.0,
    )
    panel = annotated_panel()
    sections = {
        seed: prepare_drawn_section(drawn_section(options.folder, seed, size_px), panel, settings)
        for seed in train + test
    }
    encoder = fit_section_encoder([sections[s] for s in train], settings.dim, settings.patch_um)
    encoded = {seed: encode_section(section, encoder) for seed, section in sections.items()}
    text = make_random_gene_text(panel, settings.text_dim, settings.seed)

    def report(epoch: EpochRecord) -> None:
        print(f"epoch {epoch.number} of {settings.epochs}", end="\r", flush=True)

    network = fit_network([encoded[s] for s in train], text, settings, on_epoch=report).network

    def ridge_features(seed: int) -> np.ndarray:
        return compute_multi_scale_features(
            encoded[seed].neighbor_features.numpy(), sections[seed].mask.numpy()
        )

    ridge = fit_ridge_cv(
        [ridge_features(s) for s in train], [sections[s].labels.numpy() for s in train]
    )
    measured = {f"X{s}": sections[s].labels.numpy() for s in test}
    by_dkan = {}
    for seed in test:
        batch = make_section_batch(encoded[seed])
        by_dkan[f"X{seed}"] = predict_batch(network, batch).numpy()
    by_ridge = {f"X{seed}": ridge.predict(ridge_features(seed)) for seed in test}
    dkan_scores, ridge_scores = (
        score_predictions(by_dkan, measured).to_summary(),
        score_predictions(by_ridge, measured).to_summary(),
    )
    metrics = {
        "protocol": f"simulated sections {', '.join(measured)}, never seen in training",
        "pcc_all": dkan_scores["pcc_all"],
        "ridge_pcc_all": ridge_scores["pcc_all"],
        "dkan": dkan_scores,
        "ridge on the same features": ridge_scores,
    }
    card = {
        "title": "Synthetic H&E (simulated)",
        "training_data": f"{len(train)} drawn sections, {sum(len(sections[s]) for s in train)} "
        f"spots. {SIMULATION_NOTICE}",
        "splits": {"train": [f"X{s}" for s in train], "test": list(measured)},
        "metrics": metrics,
        "intended_use": "To try the plugin without network or data. Says nothing about tissue.",
        "licence": "BSD-3-Clause",
    }
    first = sections[train[0]]
    checkpoint = Checkpoint(
        network=network,
        panel=panel,
        label_scale=SCALE,
        patch=PatchGeometry(settings.patch_px, settings.patch_um),
        spot_pitch_um=first.spot_pitch_um,
        spot_diameter_um=first.spot_diameter_um,
        encoder=encoder.spec,
        gene_text=text.source,
        card=card,
        encoder_tensors=encoder.tensors(),
        reference=build_reference([encoded[s] for s in train], network, "drawn tissue (simulated)"),
    )
    saved = save_checkpoint(options.out, checkpoint, half=True)
    for name in ("dkan", "ridge on the same features"):
        scores = metrics[name]
        print(f"{name}: PCC-ALL {scores['pcc_all']:.3f}, MSE {scores['mse']:.4f}")
    print(f"{saved.path}: {options.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
