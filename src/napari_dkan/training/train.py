"""Train a checkpoint from measured sections and write its model card."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from ..atomic_write import require_output_folder
from ..expression.panel import Panel
from ..model.checkpoint.checkpoint_file import Checkpoint, PatchGeometry, save_checkpoint
from .data.prepared_section import PreparedSection, encode_section
from .data.section_loading import (
    DEFAULT_LABEL_SCALE,
    adapt_settings_to_sections,
    load_sections,
)
from .evaluation.crossval import DKAN_METHOD, cross_validate
from .evaluation.crossval_report import build_crossval_report, read_matching_report
from .fit.build_reference import build_reference
from .fit.fit_model import SINGLE_DEVICE, EpochCallback, TrainingHardware, fit_model
from .fit.run_folder import RunFolder
from .genes.gene_text import (
    GeneTextFeatures,
    make_random_gene_text,
    resolve_gene_text,
    resolve_panel,
)
from .run_provenance import hash_gene_text, hash_panel, hash_section
from .train_settings import TrainSettings


def build_training_card(
    sections: Sequence[PreparedSection],
    panel: Panel,
    settings: TrainSettings,
    epochs: int,
    report: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Plain JSON; without the report of a cross-validation it says that nothing was measured."""
    card: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "training_data": {
            "sections": [s.name for s in sections],
            "spots": {s.name: len(s) for s in sections},
            "spots_dropped_without_panel_counts": {s.name: list(s.dropped_spots) for s in sections},
            "um_per_px": {s.name: round(s.mpp, 4) for s in sections},
            "slide_fingerprints": {s.name: s.slide for s in sections if s.slide},
        },
        "training": {**asdict(settings), "epochs": epochs},
    }
    if report is None:
        return card | {"splits": "none", "metrics": "not measured"}
    pooled = report["pooled"]
    return card | {
        "splits": report["protocol"],
        # the two that a list of models has room for, then everything
        "metrics": {
            "pcc_all": pooled[DKAN_METHOD]["pcc_all"],
            "ridge_pcc_all": pooled["ridge"]["pcc_all"],
            "epochs_per_fold": list_chosen_epochs(report),
            **pooled,
        },
        "per_gene_pcc": {
            symbol: {m: values[m] for m in (DKAN_METHOD, "ridge")}
            for symbol, values in report["per_gene_pcc"].items()
        },
    }


def list_chosen_epochs(report: Mapping[str, Any]) -> list[int]:
    """Epochs chosen in each fold and with each seed."""
    return [n for fold in report["folds"] for n in fold["epochs"].values()]


LogFunction = Callable[[str], None]


def train_checkpoint(
    data: str | Path,
    sections: Sequence[str] | None,
    panel_file: str | Path | None,
    out: str | Path,
    *,
    settings: TrainSettings | None = None,
    gene_text_file: str | Path | None = None,
    gene_tables: str | Path | None = None,
    encoder: str | None = None,
    encoder_weights: str | Path | None = None,
    stain: str | None = None,
    crossval: bool = True,
    crossval_report_file: str | Path | None = None,
    card: dict[str, Any] | None = None,
    run: Path | None = None,
    resume: bool = False,
    hardware: TrainingHardware = SINGLE_DEVICE,
    log: LogFunction = lambda line: None,
    log_epoch: LogFunction = lambda line: None,
) -> Path:
    """Train DKAN on sections of a folder, in any layout that is known, and write a checkpoint.

    sections : their names; None for all. panel_file, gene_text_file : where they are not given,
        those of the data (the layout published with DKAN has them); without text genes get random
        vectors.
    gene_tables : folder with the gene description and alias tables, for names and aliases.
    encoder : a frozen tile encoder by name; stain : a normalisation; see `loading.load_sections`.
    crossval : measure by leaving one section out first; the number of epochs comes from it.
    card : entries that are added to the checkpoint's card (title, licence, ...).
    measured : the report of a cross-validation done before, of the same sections, panel and
        settings; its scores and epochs are taken instead.
    run : folder that keeps the run; with resume one that was interrupted goes on.

    Raises a DkanError naming the file that is missing or not as expected.
    """
    require_output_folder(out)
    settings = settings or TrainSettings()
    panel = resolve_panel(data, panel_file, gene_tables)
    prepared = load_sections(
        data,
        sections,
        panel,
        settings,
        encoder=encoder,
        encoder_weights=encoder_weights,
        stain=stain,
        log=log,
    )
    settings = adapt_settings_to_sections(settings, prepared)
    text = resolve_gene_text(data, gene_text_file, panel, settings)
    config = build_run_config("train", prepared, panel, text, settings) | {"crossval": crossval}
    report = (
        None if crossval_report_file is None else read_matching_report(crossval_report_file, config)
    )
    folder = None if run is None else RunFolder.create_or_resume(run, {"run": config}, resume)
    checkpoint = train_on_sections(
        prepared,
        panel,
        text,
        settings=settings,
        crossval=crossval,
        report=report,
        card=card,
        run=folder,
        hardware=hardware,
        log=log,
        log_epoch=log_epoch,
    )
    if folder is not None:
        folder.write_json("card.json", checkpoint.card)
    saved = save_checkpoint(out, checkpoint, half=True).path
    assert saved is not None
    log(f"wrote {saved}")
    return saved


def build_run_config(
    kind: str,
    sections: Sequence[PreparedSection],
    panel: Panel,
    text: GeneTextFeatures,
    settings: TrainSettings,
) -> dict[str, Any]:
    """What a run folder has to agree in before it is gone on with."""
    stain = sections[0].stain
    return {
        "kind": kind,
        "sections": {s.name: hash_section(s) for s in sections},
        "panel": hash_panel(panel),
        "gene text": hash_gene_text(text),
        "settings": asdict(settings),
        **({} if stain is None else {"stain": stain.method}),
    }


def train_on_sections(
    sections: Sequence[PreparedSection],
    panel: Panel,
    gene_text: GeneTextFeatures | None = None,
    *,
    settings: TrainSettings | None = None,
    crossval: bool = True,
    report: Mapping[str, Any] | None = None,
    card: dict[str, Any] | None = None,
    run: RunFolder | None = None,
    hardware: TrainingHardware = SINGLE_DEVICE,
    log: LogFunction = lambda line: None,
    log_epoch: LogFunction = lambda line: None,
) -> Checkpoint:
    """A checkpoint trained on prepared sections, with an honest card; it is not written.

    With crossval the card carries the leave-one-section-out scores of DKAN and every baseline,
    and the final network is trained for the median of the folds' epochs; a report given takes
    its place. With neither, training runs ``settings.epochs`` epochs and the card says that
    nothing was measured.
    """
    settings = settings or TrainSettings()
    text = gene_text or make_random_gene_text(panel, settings.text_dim, settings.seed)
    if report is None and crossval:
        measured = cross_validate(
            sections, text, settings, run=run, hardware=hardware, log=log, log_epoch=log_epoch
        )
        report = build_crossval_report(measured, panel, {})
    epochs = settings.epochs if report is None else round(median(list_chosen_epochs(report)))
    log(f"final fit on {', '.join(s.name for s in sections)}: {epochs} epochs")
    model = fit_model(
        sections,
        text,
        settings,
        epochs,
        folder=None if run is None else run.path / "final",
        hardware=hardware,
        on_epoch=_make_final_epoch_callback(log_epoch),
    )
    reference = build_reference([encode_section(s, model.encoder) for s in sections], model.network)
    first = sections[0]
    return Checkpoint(
        network=model.network,
        panel=panel,
        label_scale=DEFAULT_LABEL_SCALE,
        patch=PatchGeometry(settings.patch_px, settings.patch_um),
        spot_pitch_um=first.spot_pitch_um,
        spot_diameter_um=first.spot_diameter_um,
        encoder=model.encoder.spec,
        gene_text=text.source,
        card=build_training_card(sections, panel, settings, epochs, report) | (card or {}),
        encoder_tensors=model.encoder.tensors() or None,
        text_basis=text.basis,
        reference=reference,
        stain=first.stain,
    )


def _make_final_epoch_callback(tick: LogFunction) -> EpochCallback:
    return lambda number, pcc: tick(f"final fit: epoch {number}")
