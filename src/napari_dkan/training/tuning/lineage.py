"""The card of a fine-tuned checkpoint: what it comes from, what it was taught, how it did."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

from ... import __version__
from ...model.checkpoint import Checkpoint
from ..fingerprint import of_section
from .figures import Figures
from .lesson import Lesson
from .settings import TuneSettings

PROTOCOL = (
    "fine-tuned on part of the sections, reported on contiguous blocks held out of them (or whole "
    "sections), with a ring of spots between that belongs to neither and labels that teach "
    "averaged over spots that teach; the epoch was chosen on parts of what teaches; the ridge "
    "learnt from the same spots"
)


def fine_tuned_card(
    parent: Checkpoint,
    lessons: Sequence[Lesson],
    settings: TuneSettings,
    found: Figures,
    facts: dict[str, Any],
    title: str,
) -> dict[str, Any]:
    """Plain JSON. facts : split, adapted part, epochs, forgetting, verdict, command.

    Figures of the parent hold for the parent alone, so only where it comes from is kept.
    """
    before = parent.card.get("training_data")
    before = before if isinstance(before, dict) else {}
    after, ridge = found.methods["after"], found.methods["ridge"]
    return {
        "title": title or f"{parent.title}, taught {', '.join(le.name for le in lessons)}",
        "date": datetime.date.today().isoformat(),
        "parent": {
            "title": parent.title,
            "sha256": parent.sha256,
            "pcc_all": _entry(parent.card.get("metrics"), "pcc_all"),
            **_kept(parent.card, "parent", "lineage"),
        },
        "training_data": {
            **before,
            "sections": [*_list(before, "sections"), *(f"{le.name} (part)" for le in lessons)],
            "slide_fingerprints": {
                **_dict(before, "slide_fingerprints"),
                **{le.name: le.section.slide for le in lessons if le.section.slide},
            },
        },
        "fine_tuning": {
            "sections": {le.name: of_section(le.section) for le in lessons},
            "settings": settings.to_json(),
            **facts,
            "version": __version__,
        },
        "splits": PROTOCOL,
        "metrics": {
            "pcc_all": after["pcc_all"],
            "ridge_pcc_all": ridge["pcc_all"],
            "held_out_spots": found.spots,
            **{m: dict(values) for m, values in found.methods.items()},
        },
        "per_gene_pcc": {
            symbol: {"dkan": values["after"], "ridge": values["ridge"], "before": values["before"]}
            for symbol, values in found.per_gene.items()
        },
        **_kept(parent.card, "licence"),
    }


def _kept(card: dict[str, Any], *names: str) -> dict[str, Any]:
    return {n: card[n] for n in names if n in card}


def _entry(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _dict(data: dict[str, Any], name: str) -> dict[str, Any]:
    value = data.get(name)
    return value if isinstance(value, dict) else {}


def _list(data: dict[str, Any], name: str) -> list[Any]:
    value = data.get(name)
    return value if isinstance(value, list) else []
