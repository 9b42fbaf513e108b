"""Fine-tune a checkpoint on measured sections and report whether it improved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...inference.device import pick_device
from ...model.checkpoint.checkpoint_file import Checkpoint
from ...model.network.dkan_network import DKAN
from ...model.network.ensemble import Ensemble, combine_members
from ..run_provenance import collect_provenance
from .add_genes import add_genes
from .finetune_evaluation import (
    FinetuneMetrics,
    compute_finetune_metrics,
    measure_forgetting,
    predict_with_original,
    predict_with_ridge,
)
from .finetune_settings import DEFAULT_EPOCHS, AdaptScope, FinetuneSettings
from .finetuned_card import build_finetuned_card
from .hold_out_split import HoldOutSplit, Subset, split_sections
from .training_section import TrainingSection, TrainingSectionReader, read_training_sections
from .tuned_model import SpotTokens, TunedModel, compute_spot_tokens, initialize_mean_std
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
    """checkpoint : not written yet. better : on the spots held out; verdict says so in words."""

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
    command: str = "finetune",
    title: str = "",
) -> FinetuneResult:
    """Teach every member of a checkpoint some spots of the sections; see `split` for which.

    others : sections that teach nothing; the change on them is reported. new_genes : a gene file
    whose genes join the panel where every section measures them. title : on the new card.

    Raises SpotsError when a section has too few spots, none of the panel's genes, or lies off its
    image.
    """
    control = control or FinetuneControl()
    bigger = add_genes(checkpoint, new_genes, sections)
    start, panel = bigger.checkpoint, bigger.checkpoint.panel
    reader = TrainingSectionReader(checkpoint, encoder_weights, pick_device("cpu"))
    count = len(sections) + len(others)

    def reading(name: str, done: int) -> None:
        on_event(SectionReadStarted(name, done, count))

    lessons = read_training_sections(reader, sections, panel, reading)
    rest = read_training_sections(
        reader, others, panel, lambda n, done: reading(n, len(sections) + done)
    )
    parts = split_sections(lessons, settings, max(1, checkpoint.label_scale.smoothing // 2))
    adapt = settings.adapt.resolve(len(parts.train))
    settings = replace(settings, adapt=adapt)
    epochs = settings.epochs or (None if settings.seconds else DEFAULT_EPOCHS)
    if bigger.symbols:
        _initialize_new_genes(start.network, len(checkpoint.panel), lessons, parts.train)
    course, pupils = _build_tuning_loop(start.network, lessons, parts, settings, epochs)
    on_event(_make_started_event(lessons, parts, settings, epochs, course, len(panel)))
    course.run(
        on_event, control, _make_gene_map_callback(checkpoint, lessons, pupils, control, on_event)
    )
    network = combine_members([p.network.requires_grad_(False).eval() for p in pupils])
    old = checkpoint.network
    predicted = {
        "before": predict_with_original(old, lessons, parts.test, bigger),
        "after": [_predict_mean(pupils, i, rows) for i, rows in enumerate(parts.test.rows)],
        "ridge": predict_with_ridge(lessons, parts),
    }
    known = np.arange(len(panel)) < len(checkpoint.panel)
    found = compute_finetune_metrics(panel, lessons, parts.test, predicted, known)
    verdict = found.format_verdict(course.end_reason)
    facts: dict[str, Any] = {
        "verdict": verdict,
        "adapted": adapt.value,
        "epochs": len(course.curve),
        "best_epoch": course.best_epoch,
        "levels_adapted": course.is_recalibrated,
        "ended": course.end_reason,
        "spots": {
            "fit": len(parts.train),
            "choosing": parts.n_validation,
            "held_out": len(parts.test),
            "between": parts.n_buffer,
        },
        "genes_not_measured": _list_unmeasured_genes(panel.symbols, lessons),
        "others": measure_forgetting(old, network, rest),
        "command": command,
    }
    if bigger.symbols:
        new = compute_finetune_metrics(panel, lessons, parts.test, predicted, ~known)
        facts["new_genes"] = {
            "genes": list(bigger.symbols),
            "not_measured": list(bigger.unmeasured_symbols),
            **{m: dict(values) for m, values in new.summaries.items()},
            "per_gene_pcc": {g: dict(values) for g, values in new.pcc_per_gene.items()},
        }
    card = build_finetuned_card(checkpoint, lessons, settings, found, facts, title)
    made = replace(start, network=network, card=card, sha256="", path=None)
    if adapt is AdaptScope.everything:  # the reference is of tokens that are no longer made so
        made = replace(made, reference=None)
    return FinetuneResult(
        made,
        _build_report(checkpoint, lessons, found, facts, settings, course),
        found.is_better,
        verdict,
    )


def _build_tuning_loop(
    network: DKAN | Ensemble,
    lessons: Sequence[TrainingSection],
    parts: HoldOutSplit,
    settings: FinetuneSettings,
    epochs: int | None,
) -> tuple[TuningLoop, list[TunedModel]]:
    members = network.member_networks if isinstance(network, Ensemble) else [network]
    views: list[list[SpotTokens]] = [compute_spot_tokens(m, lessons) for m in members]

    def pupil(number: int, part: Subset, seed: int) -> TunedModel:
        i = number % len(members)
        return TunedModel(
            members[i], views[i], lessons, part, settings.adapt, settings.lr, settings.seed + seed
        )

    kept = [pupil(i, parts.train, i) for i in range(len(members))]
    judged = [(pupil(i, taught, 100 + i), chosen) for i, (taught, chosen) in enumerate(parts.folds)]
    return TuningLoop(kept, judged, epochs, settings), kept


@torch.no_grad()
def _initialize_new_genes(
    network: DKAN | Ensemble, old: int, lessons: Sequence[TrainingSection], fit: Subset
) -> None:
    """Levels of the new genes, from the spots that teach."""
    for member in network.member_networks if isinstance(network, Ensemble) else [network]:
        pairs = zip(compute_spot_tokens(member, lessons), fit.rows, strict=True)
        shown = [
            member.decode(v.select_rows(torch.from_numpy(r)).fused.z).numpy() for v, r in pairs
        ]
        initialize_mean_std(member, slice(old, None), shown, fit.labels)


def _make_started_event(
    lessons: Sequence[TrainingSection],
    parts: HoldOutSplit,
    settings: FinetuneSettings,
    epochs: int | None,
    course: TuningLoop,
    genes: int,
) -> FinetuneStarted:
    return FinetuneStarted(
        len(parts.train),
        parts.n_validation,
        len(parts.test),
        parts.n_buffer,
        settings.adapt.value,
        epochs,
        settings.seconds,
        course.validation_pcc(),
        tuple(le.name for le in lessons),
        genes,
    )


def _make_gene_map_callback(
    checkpoint: Checkpoint,
    lessons: Sequence[TrainingSection],
    pupils: Sequence[TunedModel],
    control: FinetuneControl,
    on_event: FinetuneEventCallback,
) -> Callable[[], None]:
    """Tells the asked-for gene's values of now at every spot of every section."""

    def tell() -> None:
        gene = control.requested_gene
        if gene is None or gene not in checkpoint.panel:
            return
        column = checkpoint.panel.row(gene)
        for i, lesson in enumerate(lessons):
            values = np.full(lesson.n_section_spots, np.nan)
            values[lesson.section_rows] = _predict_mean(pupils, i, np.arange(len(lesson)))[
                :, column
            ]
            on_event(GeneMapComputed(lesson.name, gene, tuple(values.tolist())))

    return tell


def _predict_mean(pupils: Sequence[TunedModel], lesson: int, rows: np.ndarray) -> np.ndarray:
    return np.mean([p.predict(lesson, rows) for p in pupils], axis=0)


def _list_unmeasured_genes(symbols: Sequence[str], lessons: Sequence[TrainingSection]) -> list[str]:
    seen = np.any([le.is_gene_measured for le in lessons], axis=0)
    return [s for s, m in zip(symbols, seen, strict=True) if not m]


def _build_report(
    parent: Checkpoint,
    lessons: Sequence[TrainingSection],
    found: FinetuneMetrics,
    facts: dict[str, Any],
    settings: FinetuneSettings,
    course: TuningLoop,
) -> dict[str, Any]:
    return {
        "format": 1,
        "kind": "fine-tuning",
        "better": found.is_better,
        **facts,
        "sections": [le.name for le in lessons],
        "spots_held_out": found.n_spots,
        "genes_better": found.n_genes_better,
        "summary": {m: dict(values) for m, values in found.summaries.items()},
        "genes": [{"symbol": g, **values} for g, values in found.pcc_per_gene.items()],
        "curve": {
            "pcc_before": _round_or_none(course.initial_pcc),
            "loss": [_round_or_none(loss) for loss, _ in course.curve],
            "pcc": [_round_or_none(pcc) for _, pcc in course.curve],
        },
        "settings": settings.to_json(),
        "parent": {"title": parent.title, "sha256": parent.sha256},
        "made": collect_provenance(str(facts["command"])),
    }


def _round_or_none(value: float) -> float | None:
    return round(value, 5) if abs(value) < float("inf") else None
