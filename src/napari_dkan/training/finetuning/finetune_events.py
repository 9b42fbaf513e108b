"""What fine-tuning reports before and during the training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ...expression.panel import Panel
from ...model.checkpoint.checkpoint_file import Checkpoint
from ..depth_reference import describe_shallow_section
from .hold_out_split import HoldOutSplit
from .training_section import LabelMatrix, SpotRows, TrainingSection
from .tuned_model import TunedModel
from .tuning_loop import TuningLoop, describe_scopes
from .tuning_protocol import FinetuneControl, FinetuneEvent, FinetuneStarted, GeneMapComputed

FinetuneEventCallback = Callable[[FinetuneEvent], None]


def make_started_event(
    sections: Sequence[TrainingSection],
    split: HoldOutSplit,
    loops: Sequence[TuningLoop],
    n_genes: int,
    shallow: Mapping[str, str],
    plain: str,
) -> FinetuneStarted:
    """Make the event that is sent once the sections are read and split."""
    return FinetuneStarted(
        len(split.train),
        split.n_validation,
        len(split.test),
        split.n_buffer,
        describe_scopes(loops),
        sum(loop.max_epochs for loop in loops if loop.max_epochs) or None,
        sum(loop.settings.seconds for loop in loops if loop.settings.seconds) or None,
        loops[0].initial.mean_partial if loops else math.nan,
        tuple(s.name for s in sections),
        n_genes,
        tuple(f"{name}: {text}" for name, text in shallow.items()),
        plain,
    )


def make_gene_map_callback(
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


def describe_shallow_sections(
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
