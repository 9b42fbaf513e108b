"""The model card of a fine-tuned checkpoint: parent, training spots and results."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

from ... import __version__
from ...model.checkpoint.checkpoint_file import Checkpoint
from ..run_provenance import hash_section
from .finetune_evaluation import FinetuneMetrics
from .finetune_settings import FinetuneSettings
from .training_section import TrainingSection

FINETUNE_PROTOCOL = (
    "fine-tuned on part of the sections, reported on contiguous blocks held out of them (or whole "
    "sections), with a ring of spots between that belongs to neither and labels that teach "
    "averaged over spots that teach; the epoch was chosen on parts of what teaches; the ridge "
    "learnt from the same spots"
)


def build_finetuned_card(
    parent: Checkpoint,
    lessons: Sequence[TrainingSection],
    settings: FinetuneSettings,
    metrics: FinetuneMetrics,
    facts: dict[str, Any],
    title: str,
) -> dict[str, Any]:
    """Plain JSON. facts : split, adapted part, epochs, forgetting, verdict, command.

    Figures of the parent hold for the parent alone, so only where it comes from is kept.
    """
    before = parent.card.get("training_data")
    before = before if isinstance(before, dict) else {}
    after, ridge = metrics.summaries["after"], metrics.summaries["ridge"]
    return {
        "title": title or f"{parent.title}, taught {', '.join(le.name for le in lessons)}",
        "date": datetime.date.today().isoformat(),
        "parent": {
            "title": parent.title,
            "sha256": parent.sha256,
            "pcc_all": _get_entry(parent.card.get("metrics"), "pcc_all"),
            **_select_entries(parent.card, "parent", "lineage"),
        },
        "training_data": {
            **before,
            "sections": [*_get_list(before, "sections"), *(f"{le.name} (part)" for le in lessons)],
            "slide_fingerprints": {
                **_get_dict(before, "slide_fingerprints"),
                **{le.name: le.section.slide for le in lessons if le.section.slide},
            },
        },
        "fine_tuning": {
            "sections": {le.name: hash_section(le.section) for le in lessons},
            "settings": settings.to_json(),
            **facts,
            "version": __version__,
        },
        "splits": FINETUNE_PROTOCOL,
        "metrics": {
            "pcc_all": after["pcc_all"],
            "ridge_pcc_all": ridge["pcc_all"],
            "held_out_spots": metrics.n_spots,
            **{m: dict(values) for m, values in metrics.summaries.items()},
        },
        "per_gene_pcc": {
            symbol: {"dkan": values["after"], "ridge": values["ridge"], "before": values["before"]}
            for symbol, values in metrics.pcc_per_gene.items()
        },
        **_select_entries(parent.card, "licence"),
    }


def _select_entries(card: dict[str, Any], *names: str) -> dict[str, Any]:
    return {n: card[n] for n in names if n in card}


def _get_entry(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _get_dict(data: dict[str, Any], name: str) -> dict[str, Any]:
    value = data.get(name)
    return value if isinstance(value, dict) else {}


def _get_list(data: dict[str, Any], name: str) -> list[Any]:
    value = data.get(name)
    return value if isinstance(value, list) else []
