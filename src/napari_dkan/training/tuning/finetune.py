"""Teaching a checkpoint measured sections, and an honest answer whether it helped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...inference.device import pick_device
from ...model.checkpoint import Checkpoint
from ...model.ensemble import Ensemble, together
from ...model.network import DKAN
from ..fingerprint import provenance
from .control import Control
from .course import Course
from .events import Event, GeneMap, Reading, Started
from .figures import Figures, figures, ridge_on
from .forgetting import forgetting, predict_before
from .growth import grown
from .lesson import Lesson, Reader, read_lessons
from .levels import first_levels
from .lineage import fine_tuned_card
from .pupil import Pupil, View, views_of
from .settings import EPOCHS, Adapt, TuneSettings
from .split import Part, Split, split

if TYPE_CHECKING:
    from anndata import AnnData

OnEvent = Callable[[Event], None]


@dataclass(frozen=True)
class Tuned:
    """checkpoint : not written yet. better : on the spots held out; verdict says so in words."""

    checkpoint: Checkpoint
    report: dict[str, Any]
    better: bool
    verdict: str


def finetune(
    checkpoint: Checkpoint,
    sections: Sequence[AnnData],
    settings: TuneSettings,
    on_event: OnEvent = lambda event: None,
    control: Control | None = None,
    *,
    others: Sequence[AnnData] = (),
    new_genes: Path | None = None,
    encoder_weights: Path | None = None,
    command: str = "finetune",
    title: str = "",
) -> Tuned:
    """Teach every member of a checkpoint some spots of the sections; see `split` for which.

    others : sections that teach nothing; the change on them is reported. new_genes : a gene file
    whose genes join the panel where every section measures them. title : on the new card.

    Raises SpotsError when a section has too few spots, none of the panel's genes, or lies off its
    image.
    """
    control = control or Control()
    bigger = grown(checkpoint, new_genes, sections)
    start, panel = bigger.checkpoint, bigger.checkpoint.panel
    reader = Reader(checkpoint, encoder_weights, pick_device("cpu"))
    count = len(sections) + len(others)

    def reading(name: str, done: int) -> None:
        on_event(Reading(name, done, count))

    lessons = read_lessons(reader, sections, panel, reading)
    rest = read_lessons(reader, others, panel, lambda n, done: reading(n, len(sections) + done))
    parts = split(lessons, settings, max(1, checkpoint.label_scale.smoothing // 2))
    adapt = settings.adapt.suited(len(parts.fit))
    settings = replace(settings, adapt=adapt)
    epochs = settings.epochs or (None if settings.seconds else EPOCHS)
    if bigger.symbols:
        _place(start.network, len(checkpoint.panel), lessons, parts.fit)
    course, pupils = _course(start.network, lessons, parts, settings, epochs)
    on_event(_started(lessons, parts, settings, epochs, course, len(panel)))
    course.run(on_event, control, _map_of(checkpoint, lessons, pupils, control, on_event))
    network = together([p.network.requires_grad_(False).eval() for p in pupils])
    old = checkpoint.network
    predicted = {
        "before": predict_before(old, lessons, parts.report, bigger),
        "after": [_mean(pupils, i, rows) for i, rows in enumerate(parts.report.rows)],
        "ridge": ridge_on(lessons, parts),
    }
    known = np.arange(len(panel)) < len(checkpoint.panel)
    found = figures(panel, lessons, parts.report, predicted, known)
    verdict = found.verdict(course.end)
    facts: dict[str, Any] = {
        "verdict": verdict,
        "adapted": adapt.value,
        "epochs": len(course.curve),
        "best_epoch": course.best,
        "levels_adapted": course.levels,
        "ended": course.end,
        "spots": {
            "fit": len(parts.fit),
            "choosing": parts.choosing,
            "held_out": len(parts.report),
            "between": parts.between,
        },
        "genes_not_measured": _not_measured(panel.symbols, lessons),
        "others": forgetting(old, network, rest),
        "command": command,
    }
    if bigger.symbols:
        new = figures(panel, lessons, parts.report, predicted, ~known)
        facts["new_genes"] = {
            "genes": list(bigger.symbols),
            "not_measured": list(bigger.not_measured),
            **{m: dict(values) for m, values in new.methods.items()},
            "per_gene_pcc": {g: dict(values) for g, values in new.per_gene.items()},
        }
    card = fine_tuned_card(checkpoint, lessons, settings, found, facts, title)
    made = replace(start, network=network, card=card, sha256="", path=None)
    if adapt is Adapt.everything:  # the reference is of tokens that are no longer made so
        made = replace(made, reference=None)
    return Tuned(
        made,
        _report(checkpoint, lessons, found, facts, settings, course),
        found.better,
        verdict,
    )


def _course(
    network: DKAN | Ensemble,
    lessons: Sequence[Lesson],
    parts: Split,
    settings: TuneSettings,
    epochs: int | None,
) -> tuple[Course, list[Pupil]]:
    members = network.all_members if isinstance(network, Ensemble) else [network]
    views: list[list[View]] = [views_of(m, lessons) for m in members]

    def pupil(number: int, part: Part, seed: int) -> Pupil:
        i = number % len(members)
        return Pupil(
            members[i], views[i], lessons, part, settings.adapt, settings.lr, settings.seed + seed
        )

    kept = [pupil(i, parts.fit, i) for i in range(len(members))]
    judged = [(pupil(i, taught, 100 + i), chosen) for i, (taught, chosen) in enumerate(parts.folds)]
    return Course(kept, judged, epochs, settings), kept


@torch.no_grad()
def _place(network: DKAN | Ensemble, old: int, lessons: Sequence[Lesson], fit: Part) -> None:
    """Levels of the new genes, from the spots that teach."""
    for member in network.all_members if isinstance(network, Ensemble) else [network]:
        pairs = zip(views_of(member, lessons), fit.rows, strict=True)
        shown = [member.decode(v.rows(torch.from_numpy(r)).fused.z).numpy() for v, r in pairs]
        first_levels(member, slice(old, None), shown, fit.labels)


def _started(
    lessons: Sequence[Lesson],
    parts: Split,
    settings: TuneSettings,
    epochs: int | None,
    course: Course,
    genes: int,
) -> Started:
    return Started(
        len(parts.fit),
        parts.choosing,
        len(parts.report),
        parts.between,
        settings.adapt.value,
        epochs,
        settings.seconds,
        course.quality(),
        tuple(le.name for le in lessons),
        genes,
    )


def _map_of(
    checkpoint: Checkpoint,
    lessons: Sequence[Lesson],
    pupils: Sequence[Pupil],
    control: Control,
    on_event: OnEvent,
) -> Callable[[], None]:
    """Tells the asked-for gene's values of now at every spot of every section."""

    def tell() -> None:
        gene = control.gene
        if gene is None or gene not in checkpoint.panel:
            return
        column = checkpoint.panel.row(gene)
        for i, lesson in enumerate(lessons):
            values = np.full(lesson.total, np.nan)
            values[lesson.rows] = _mean(pupils, i, np.arange(len(lesson)))[:, column]
            on_event(GeneMap(lesson.name, gene, tuple(values.tolist())))

    return tell


def _mean(pupils: Sequence[Pupil], lesson: int, rows: np.ndarray) -> np.ndarray:
    return np.mean([p.predict(lesson, rows) for p in pupils], axis=0)


def _not_measured(symbols: Sequence[str], lessons: Sequence[Lesson]) -> list[str]:
    seen = np.any([le.measured for le in lessons], axis=0)
    return [s for s, m in zip(symbols, seen, strict=True) if not m]


def _report(
    parent: Checkpoint,
    lessons: Sequence[Lesson],
    found: Figures,
    facts: dict[str, Any],
    settings: TuneSettings,
    course: Course,
) -> dict[str, Any]:
    return {
        "format": 1,
        "kind": "fine-tuning",
        "better": found.better,
        **facts,
        "sections": [le.name for le in lessons],
        "spots_held_out": found.spots,
        "genes_better": found.genes_better,
        "summary": {m: dict(values) for m, values in found.methods.items()},
        "genes": [{"symbol": g, **values} for g, values in found.per_gene.items()],
        "curve": {
            "pcc_before": _finite(course.first_pcc),
            "loss": [_finite(loss) for loss, _ in course.curve],
            "pcc": [_finite(pcc) for _, pcc in course.curve],
        },
        "settings": settings.to_json(),
        "parent": {"title": parent.title, "sha256": parent.sha256},
        "made": provenance(str(facts["command"])),
    }


def _finite(value: float) -> float | None:
    return round(value, 5) if abs(value) < float("inf") else None
