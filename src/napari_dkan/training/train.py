"""Train a checkpoint from measured sections and write its model card."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from ..atomic_write import write_json
from ..expression.panel import Panel
from ..inference.section_choices import FROM_FILES, SectionChoices
from ..model.checkpoint.checkpoint_file import Checkpoint, save_checkpoint
from ..model.checkpoint.checkpoint_header import PatchGeometry
from .data.prepared_section import PreparedSection, encode_section, list_accounts
from .data.section_loading import (
    DEFAULT_LABEL_SCALE,
    adapt_settings_to_sections,
    load_sections,
)
from .depth_reference import TrainingDepth
from .evaluation.crossval import cross_validate
from .evaluation.crossval_report import (
    MetricValues,
    build_crossval_report,
    list_chosen_epochs,
    read_matching_report,
)
from .evaluation.paired_differences import compute_paired_differences
from .fit.build_reference import build_reference
from .fit.fit_model import SINGLE_DEVICE, TrainingHardware, fit_model
from .fit.run_folder import RunFolder
from .gene_text import GeneTextFeatures, make_random_gene_text, resolve_gene_text, resolve_panel
from .run_provenance import collect_provenance, hash_gene_text, hash_panel, hash_section
from .train_settings import FoldUnit, LogFunction, TrainSettings, ignore_log


@dataclass(frozen=True)
class TrainingInputs:
    """Inputs of a training or a cross-validation.

    Attributes
    ----------
    settings
        The settings, adapted to the sections' features.
    """

    sections: list[PreparedSection]
    panel: Panel
    gene_text: GeneTextFeatures
    settings: TrainSettings

    def to_config(self, kind: str) -> dict[str, Any]:
        """Make the configuration in which a run folder and a resumed run have to agree."""
        stain = self.sections[0].stain
        return {
            "kind": kind,
            "sections": {s.name: hash_section(s) for s in self.sections},
            "panel": hash_panel(self.panel),
            "gene text": hash_gene_text(self.gene_text),
            "settings": self.settings.to_json(),
            **({} if stain is None else {"stain": stain.method}),
        }


def prepare_training_inputs(
    data: str | Path,
    sections: Sequence[str] | None,
    panel_file: str | Path | None,
    settings: TrainSettings,
    *,
    gene_text_file: str | Path | None = None,
    gene_tables: str | Path | None = None,
    encoder: str | None = None,
    encoder_weights: str | Path | None = None,
    stain: str | None = None,
    choices: SectionChoices = FROM_FILES,
    check_sections: Callable[[Sequence[PreparedSection]], object] = lambda sections: None,
    log: LogFunction = ignore_log,
) -> TrainingInputs:
    """Load panel, sections and gene text of a data folder, in any supported layout.

    Parameters
    ----------
    sections
        Names of the sections; None for all.
    panel_file, gene_text_file
        By default those of the data (the layout published with DKAN has them). Without text,
        genes get random vectors.
    gene_tables
        Folder with the gene description and alias tables, for names and aliases of genes.
    encoder, encoder_weights, stain, choices
        See `section_loading.load_sections`.
    check_sections
        Called with the sections before the gene text is read; it may raise.

    Raises
    ------
    DkanError
        Naming the file that is missing or not as expected.
    """
    panel = resolve_panel(data, panel_file, gene_tables)
    prepared = load_sections(
        data,
        sections,
        panel,
        settings,
        encoder=encoder,
        encoder_weights=encoder_weights,
        stain=stain,
        choices=choices,
        log=log,
    )
    check_sections(prepared)
    settings = adapt_settings_to_sections(settings, prepared)
    gene_text = resolve_gene_text(data, gene_text_file, panel, settings)
    return TrainingInputs(prepared, panel, gene_text, settings)


def build_training_card(
    sections: Sequence[PreparedSection],
    panel: Panel,
    settings: TrainSettings,
    epochs: int,
    report: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Build the card as plain JSON; `report` is that of a cross-validation, None for none."""
    card: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "training_data": {
            "sections": [s.name for s in sections],
            "spots": {s.name: len(s) for s in sections},
            "spots_dropped_without_panel_counts": {s.name: list(s.dropped_spots) for s in sections},
            "um_per_px": {s.name: round(s.mpp, 4) for s in sections},
            "slide_fingerprints": {s.name: s.slide for s in sections if s.slide},
            "read_accounts": list_accounts(sections),
            **_describe_depth(sections, panel),
        },
        "training": {**settings.to_json(), "epochs": epochs},
    }
    if report is None:
        return card | {"splits": "none", "metrics": "not measured"}
    pooled = report["pooled"]
    return card | {
        "splits": report["protocol"],
        # the two numbers of a list of models, then all
        "metrics": {
            "pcc_all": pooled[settings.method]["pcc_all"],
            "ridge_pcc_all": pooled["ridge"]["pcc_all"],
            **{
                name: pooled[settings.method][name]
                for name in ("depth_partial_pcc", "ceiling", "share_of_attainable")
                if name in pooled[settings.method]
            },
            "epochs_per_fold": list_chosen_epochs(report, settings.method),
            **pooled,
        },
        "per_gene_pcc": {
            symbol: {m: values[m] for m in (settings.method, "ridge")}
            for symbol, values in report["per_gene_pcc"].items()
        },
        "per_gene_depth_partial": {
            symbol: {m: values[m] for m in (settings.method, "ridge", "ceiling", "judged")}
            for symbol, values in report.get("per_gene_depth_partial", {}).items()
        },
    }


def _describe_depth(sections: Sequence[PreparedSection], panel: Panel) -> dict[str, Any]:
    """Describe the depth of the training sections, {} unless all have counts."""
    counts = {s.name: s.counts for s in sections if s.counts is not None}
    if len(counts) < len(sections):
        return {}
    return TrainingDepth.of_sections(counts, panel).to_card()


def train_checkpoint(
    inputs: TrainingInputs,
    out: str | Path,
    *,
    crossval: bool = True,
    crossval_report_file: str | Path | None = None,
    card: dict[str, Any] | None = None,
    run: Path | None = None,
    resume: bool = False,
    hardware: TrainingHardware = SINGLE_DEVICE,
    log: LogFunction = ignore_log,
    log_epoch: LogFunction = ignore_log,
) -> Path:
    """Train a network of the settings' method and write a checkpoint.

    Parameters
    ----------
    crossval
        Whether to cross-validate first; the number of epochs comes from it.
    crossval_report_file
        Report of an earlier cross-validation with the same inputs, used instead.
    card
        Further entries of the checkpoint's card (title, licence, ...).
    run, resume
        Folder of the run, and whether to resume the run in it.

    Returns
    -------
    The path of the checkpoint.

    Raises
    ------
    DkanError
        When a file does not match the inputs or cannot be written.
    """
    config = inputs.to_config("train") | {"crossval": crossval}
    report = (
        None if crossval_report_file is None else read_matching_report(crossval_report_file, config)
    )
    folder = None if run is None else RunFolder.create_or_resume(run, {"run": config}, resume)
    checkpoint = train_on_sections(
        inputs.sections,
        inputs.panel,
        inputs.gene_text,
        settings=inputs.settings,
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


def write_crossval_report(
    inputs: TrainingInputs,
    out: Path,
    run: Path,
    *,
    by: FoldUnit,
    seeds: Sequence[int],
    command: str,
    methods: Sequence[str] = (),
    resume: bool = False,
    hardware: TrainingHardware = SINGLE_DEVICE,
    log: LogFunction = ignore_log,
    log_epoch: LogFunction = ignore_log,
) -> MetricValues:
    """Cross-validate methods and all baselines, and write the report and the folder of the run.

    Parameters
    ----------
    by, seeds, methods
        See `cross_validate`; the card in the folder of the run is of the first method.
    run, resume
        Folder of the run, and whether to resume the run in it, also with other methods.
    command
        Command that made the report.

    Returns
    -------
    The report.

    Raises
    ------
    DkanError
        When there are too few sections or patients, or a file cannot be written.
    """
    config = inputs.to_config("crossval")
    config |= {"by": by.value, "seeds": list(seeds), "precision": hardware.precision.value}
    provenance = collect_provenance(command)
    folder = RunFolder.create_or_resume(run, {"run": config, "made": provenance}, resume)
    # Not part of what a resumed run must agree in: methods may be added to it.
    config["methods"] = list(methods) or [inputs.settings.method]
    result = cross_validate(
        inputs.sections,
        inputs.gene_text,
        inputs.settings,
        by=by,
        seeds=seeds,
        methods=methods,
        run=folder,
        hardware=hardware,
        log=log,
        log_epoch=log_epoch,
    )
    made = {**provenance, **config, "gene_text_source": inputs.gene_text.source}
    report = build_crossval_report(result, inputs.panel, made)
    report["paired"] = compute_paired_differences(result)
    report["read_accounts"] = list_accounts(inputs.sections)
    epochs = round(median(result.epochs))
    settings = replace(inputs.settings, method=result.trained_methods[0])
    card = build_training_card(inputs.sections, inputs.panel, settings, epochs, report)
    folder.write_json("card.json", card)
    write_json(out, report)
    return report


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
    log: LogFunction = ignore_log,
    log_epoch: LogFunction = ignore_log,
) -> Checkpoint:
    """Train a checkpoint on prepared sections; it is not written.

    Parameters
    ----------
    gene_text
        Text features of the genes; random vectors by default.
    crossval
        Whether to cross-validate first. The card then has the scores of the method and of every
        baseline,
        and the final network is trained for the median of the folds' epochs. Without, training
        runs ``settings.epochs`` epochs and the card says that nothing was measured.
    report
        Report of an earlier cross-validation, which replaces a new one.
    card
        Further entries of the card.
    """
    settings = settings or TrainSettings()
    text = gene_text or make_random_gene_text(panel, settings.text_dim, settings.seed)
    if report is None and crossval:
        result = cross_validate(
            sections, text, settings, run=run, hardware=hardware, log=log, log_epoch=log_epoch
        )
        report = build_crossval_report(result, panel, {})
    epochs = (
        settings.epochs
        if report is None
        else round(median(list_chosen_epochs(report, settings.method)))
    )
    log(f"final fit on {', '.join(s.name for s in sections)}: {epochs} epochs")
    model = fit_model(
        sections,
        text,
        settings,
        epochs,
        folder=None if run is None else run.path / "final",
        hardware=hardware,
        on_epoch=lambda epoch: log_epoch(f"final fit: epoch {epoch.number}"),
    )
    reference = build_reference([encode_section(s, model.encoder) for s in sections], model.network)
    first, has_text = sections[0], model.network.config.gene_text_dim > 0
    return Checkpoint(
        network=model.network,
        panel=panel,
        label_scale=DEFAULT_LABEL_SCALE,
        patch=PatchGeometry(settings.patch_px, settings.patch_um),
        spot_pitch_um=first.spot_pitch_um,
        spot_diameter_um=first.spot_diameter_um,
        encoder=model.encoder.spec,
        gene_text=text.source if has_text else "none: this method uses no gene text",
        card=build_training_card(sections, panel, settings, epochs, report) | (card or {}),
        encoder_tensors=model.encoder.tensors() or None,
        text_basis=text.basis if has_text else None,
        reference=reference,
        stain=first.stain,
    )
