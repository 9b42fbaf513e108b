"""Fine-tune a checkpoint on measured sections and report whether it improved."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...expression.panel import Panel
from ...model.checkpoint.checkpoint_file import Checkpoint
from ...model.network.dkan_network import DKAN
from ...model.network.ensemble import Ensemble, combine_members, list_members
from ..depth_reference import describe_shallow_section
from .add_genes import AddedGenes, add_genes
from .finetune_evaluation import (
    FinetuneMetrics,
    compute_finetune_metrics,
    measure_forgetting,
    predict_with_original,
    predict_with_ridge,
)
from .finetune_settings import DEFAULT_EPOCHS, AdaptScope, FinetuneSettings
from .finetuned_card import build_finetune_report, build_finetuned_card
from .hold_out_split import HoldOutSplit, Subset, split_sections
from .training_section import (
    LabelMatrix,
    SpotRows,
    TrainingSection,
    TrainingSectionReader,
    read_training_sections,
)
from .tuned_model import TunedModel, compute_spot_tokens, initialize_mean_std
from .tuning_loop import TuningLoop
from .tuning_protocol import (
    FinetuneControl,
    FinetuneEvent,
    FinetuneStarted,
    GeneMapComputed,
    SectionReadStarted,
)

if TYPE_CHECKING:
    from anndata import AnnData


FinetuneEventCallback = Callable[[FinetuneEvent], None]


@dataclass(frozen=True)
class FinetuneResult:
    """A fine-tuned checkpoint, not written yet.

    Attributes
    ----------
    is_better
        Whether it is better on the test spots.
    verdict
        The same in one sentence.
    """

    checkpoint: Checkpoint
    report: dict[str, Any]
    is_better: bool
    verdict: str


def finetune_checkpoint(
    checkpoint: Checkpoint,
    sections: Sequence[AnnData],
    settings: FinetuneSettings,
    on_event: FinetuneEventCallback = lambda event: None,
    control: FinetuneControl | None = None,
    *,
    others: Sequence[AnnData] = (),
    new_genes: Path | None = None,
    encoder_weights: Path | None = None,
    few_genes: bool = False,
    command: str = "finetune",
    title: str = "",
) -> FinetuneResult:
    """Fine-tune every member of a checkpoint on part of the sections' spots.

    `hold_out_split.split_sections` chooses the spots.

    Parameters
    ----------
    others
        Sections that are not trained on; the report has the change on them.
    new_genes
        Gene file whose genes are added where every section measures them.
    few_genes
        See `measured_section.require_panel_genes`.
    title
        Title on the new card.

    Raises
    ------
    SpotsError
        When a section has too few spots or none of the panel's genes, or is off its image.
    """
    control = control or FinetuneControl()
    added = add_genes(checkpoint, new_genes, sections)
    start, panel = added.checkpoint, added.checkpoint.panel
    reader = TrainingSectionReader(checkpoint, encoder_weights, few_genes)
    training_sections, other_sections = _read_sections(reader, start, sections, others, on_event)
    reach = max(1, checkpoint.label_scale.smoothing // 2)
    split = split_sections(training_sections, settings, reach)
    settings = replace(settings, adapt=settings.adapt.resolve(len(split.train)))
    max_epochs = settings.epochs or (None if settings.seconds else DEFAULT_EPOCHS)
    if added.symbols:
        n_old_genes = len(checkpoint.panel)
        _initialize_new_genes(start.network, n_old_genes, training_sections, split.train)
    loop = _build_tuning_loop(start.network, training_sections, split, settings, max_epochs)
    shallow = _describe_shallow_sections(checkpoint, training_sections)
    on_event(_make_started_event(training_sections, split, loop, len(panel), shallow))
    send_gene_map = _make_gene_map_callback(
        checkpoint, training_sections, loop.members, control, on_event
    )
    loop.run(on_event, control, send_gene_map)
    network = combine_members([m.network.requires_grad_(False).eval() for m in loop.members])
    predicted = {
        "before": predict_with_original(checkpoint.network, training_sections, split.test, added),
        "after": [_predict_mean(loop.members, i, rows) for i, rows in enumerate(split.test.rows)],
        "ridge": predict_with_ridge(training_sections, split),
    }
    is_old_gene = np.arange(len(panel)) < len(checkpoint.panel)
    metrics = compute_finetune_metrics(panel, training_sections, split, predicted, is_old_gene)
    facts = _collect_facts(metrics, loop, split, panel.symbols, training_sections)
    facts["others"] = measure_forgetting(checkpoint.network, network, other_sections)
    facts["shallow"] = shallow
    facts["command"] = command
    if added.symbols:
        new_metrics = compute_finetune_metrics(
            panel, training_sections, split, predicted, ~is_old_gene
        )
        facts["new_genes"] = _describe_new_genes(added, new_metrics)
    tuned = replace(
        start,
        network=network,
        card=build_finetuned_card(checkpoint, training_sections, settings, metrics, facts, title),
        sha256="",
        path=None,
    )
    if settings.adapt is AdaptScope.everything:  # the tokens that the reference describes changed
        tuned = replace(tuned, reference=None)
    report = build_finetune_report(checkpoint, training_sections, settings, metrics, facts, loop)
    return FinetuneResult(tuned, report, metrics.is_better, facts["verdict"])


def _read_sections(
    reader: TrainingSectionReader,
    extended: Checkpoint,
    sections: Sequence[AnnData],
    others: Sequence[AnnData],
    on_event: FinetuneEventCallback,
) -> tuple[list[TrainingSection], list[TrainingSection]]:
    """Read the training sections and the others, with an event before each."""
    count = len(sections) + len(others)

    def on_section(name: str, n_done: int) -> None:
        on_event(SectionReadStarted(name, n_done, count))

    read = read_training_sections(reader, [*sections, *others], extended.panel, on_section)
    return read[: len(sections)], read[len(sections) :]


def _build_tuning_loop(
    network: DKAN | Ensemble,
    sections: Sequence[TrainingSection],
    split: HoldOutSplit,
    settings: FinetuneSettings,
    max_epochs: int | None,
) -> TuningLoop:
    networks = list_members(network)
    tokens = [compute_spot_tokens(m, sections) for m in networks]

    def tuned_model(number: int, subset: Subset, seed_offset: int) -> TunedModel:
        i = number % len(networks)
        seed = settings.seed + seed_offset
        return TunedModel(
            networks[i], tokens[i], sections, subset, settings.adapt, settings.lr, seed
        )

    members = [tuned_model(i, split.train, i) for i in range(len(networks))]
    validation_models = [
        (tuned_model(i, train, 100 + i), validation)
        for i, (train, validation) in enumerate(split.folds)
    ]
    return TuningLoop(members, validation_models, max_epochs, settings)


@torch.no_grad()
def _initialize_new_genes(
    network: DKAN | Ensemble,
    n_old_genes: int,
    sections: Sequence[TrainingSection],
    train: Subset,
) -> None:
    """Set mean and standard deviation of the new genes by the training spots."""
    for member in list_members(network):
        pairs = zip(compute_spot_tokens(member, sections), train.rows, strict=True)
        predicted = [
            member.decode(tokens.select_rows(torch.from_numpy(rows)).fused.z).numpy()
            for tokens, rows in pairs
        ]
        initialize_mean_std(member, slice(n_old_genes, None), predicted, train.labels)


def _describe_shallow_sections(
    checkpoint: Checkpoint, sections: Sequence[TrainingSection]
) -> dict[str, str]:
    """Describe the sections of far fewer counts than the checkpoint was trained on, by name."""
    found = {}
    for section in sections:
        rows = np.flatnonzero(section.is_gene_measured[: len(checkpoint.panel)])
        if section.counts is None or not len(rows):
            continue
        measured = Panel(tuple(checkpoint.panel.genes[row] for row in rows))
        text = describe_shallow_section(checkpoint.card, section.counts, measured)
        if text is not None:
            found[section.name] = text
    return found


def _make_started_event(
    sections: Sequence[TrainingSection],
    split: HoldOutSplit,
    loop: TuningLoop,
    n_genes: int,
    shallow: Mapping[str, str],
) -> FinetuneStarted:
    return FinetuneStarted(
        len(split.train),
        split.n_validation,
        len(split.test),
        split.n_buffer,
        loop.settings.adapt.value,
        loop.max_epochs,
        loop.settings.seconds,
        loop.validation_pcc(),
        tuple(s.name for s in sections),
        n_genes,
        tuple(f"{name}: {text}" for name, text in shallow.items()),
    )


def _make_gene_map_callback(
    checkpoint: Checkpoint,
    sections: Sequence[TrainingSection],
    members: Sequence[TunedModel],
    control: FinetuneControl,
    on_event: FinetuneEventCallback,
) -> Callable[[], None]:
    """Make a function that sends the current map of the requested gene for every section."""

    def send_gene_map() -> None:
        gene = control.requested_gene
        if gene is None or gene not in checkpoint.panel:
            return
        column = checkpoint.panel.row(gene)
        for i, section in enumerate(sections):
            values = np.full(section.n_section_spots, np.nan)
            predicted = _predict_mean(members, i, np.arange(len(section)))
            values[section.section_rows] = predicted[:, column]
            on_event(GeneMapComputed(section.name, gene, tuple(values.tolist())))

    return send_gene_map


def _predict_mean(members: Sequence[TunedModel], section_index: int, rows: SpotRows) -> LabelMatrix:
    mean: LabelMatrix = np.mean([m.predict(section_index, rows) for m in members], axis=0)
    return mean


def _collect_facts(
    metrics: FinetuneMetrics,
    loop: TuningLoop,
    split: HoldOutSplit,
    symbols: Sequence[str],
    sections: Sequence[TrainingSection],
) -> dict[str, Any]:
    """Collect the entries that card and report share."""
    is_measured = np.any([s.is_gene_measured for s in sections], axis=0)
    return {
        "verdict": metrics.format_verdict(loop.end_reason),
        "adapted": loop.settings.adapt.value,
        "epochs": len(loop.curve),
        "best_epoch": loop.best_epoch,
        "levels_adapted": loop.is_recalibrated,
        "ended": loop.end_reason,
        "spots": {
            "fit": len(split.train),
            "choosing": split.n_validation,
            "held_out": len(split.test),
            "between": split.n_buffer,
        },
        "genes_not_measured": [s for s, m in zip(symbols, is_measured, strict=True) if not m],
    }


def _describe_new_genes(added: AddedGenes, metrics: FinetuneMetrics) -> dict[str, Any]:
    return {
        "genes": list(added.symbols),
        "not_measured": list(added.unmeasured_symbols),
        **{m: dict(values) for m, values in metrics.summaries.items()},
        "per_gene_pcc": {g: dict(values) for g, values in metrics.pcc_per_gene.items()},
        "per_gene_depth_partial": {
            g: dict(values) for g, values in metrics.depth_partial_per_gene.items()
        },
    }
