"""The model card and the report of a fine-tuned checkpoint."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ... import __version__
from ...model.checkpoint.checkpoint_file import Checkpoint
from ..data.prepared_section import list_accounts
from ..metrics import round_or_none
from ..run_provenance import collect_provenance, hash_section
from .add_genes import AddedGenes
from .candidates import CandidateChoice
from .finetune_evaluation import FinetuneMetrics
from .finetune_settings import FinetuneSettings
from .hold_out_split import HoldOutSplit
from .training_section import TrainingSection
from .tuning_loop import TuningLoop, describe_scopes, is_premature_end

FINETUNE_PROTOCOL = (
    "fine-tuned on part of the sections, reported on contiguous blocks held out of them (or whole "
    "sections), with a buffer ring of spots that belongs to neither and training labels averaged "
    "over training spots only; epoch, penalty and the fit that is kept were chosen on parts of the "
    "training spots; the ridge was fitted to the same spots"
)


def collect_facts(
    metrics: FinetuneMetrics,
    loops: Sequence[TuningLoop],
    split: HoldOutSplit,
    symbols: Sequence[str],
    sections: Sequence[TrainingSection],
    choice: CandidateChoice,
) -> dict[str, Any]:
    """Collect the entries that card and report share."""
    is_measured = np.any([s.is_gene_measured for s in sections], axis=0)
    ended = next((o.end_reason for o in loops if is_premature_end(o.end_reason)), "")
    ended = ended or (loops[-1].end_reason if loops else "nothing was trained")
    return {
        "verdict": f"{metrics.format_verdict(ended)}; {choice.reason}",
        "kept": choice.candidate.name,
        "why": choice.reason,
        "adapted": describe_scopes(loops),
        "epochs": sum(len(loop.curve) for loop in loops),
        "best_epoch": loops[-1].kept_epoch if loops else 0,
        "ended": ended,
        "spots": {
            "fit": len(split.train),
            "choosing": split.n_validation,
            "held_out": len(split.test),
            "between": split.n_buffer,
        },
        "genes_not_measured": [s for s, m in zip(symbols, is_measured, strict=True) if not m],
    }


def describe_new_genes(added: AddedGenes, metrics: FinetuneMetrics) -> dict[str, Any]:
    """Describe the genes that were added, for card and report."""
    return {
        "genes": list(added.symbols),
        "not_measured": list(added.unmeasured_symbols),
        **{m: dict(values) for m, values in metrics.summaries.items()},
        "per_gene_pcc": {g: dict(values) for g, values in metrics.pcc_per_gene.items()},
        "per_gene_depth_partial": {
            g: dict(values) for g, values in metrics.depth_partial_per_gene.items()
        },
    }


def build_finetuned_card(
    parent: Checkpoint,
    sections: Sequence[TrainingSection],
    settings: FinetuneSettings,
    metrics: FinetuneMetrics,
    facts: dict[str, Any],
    title: str,
) -> dict[str, Any]:
    """Build the card as plain JSON.

    The parent's metrics do not hold for this checkpoint, so the card has its identity,
    PCC-ALL and depth-partial PCC only.

    Parameters
    ----------
    facts
        Split, trained modules, epochs, forgetting, verdict and command.
    """
    data = parent.card.get("training_data")
    data = data if isinstance(data, dict) else {}
    after, ridge = metrics.summaries["after"], metrics.summaries["ridge"]
    return {
        "title": title or f"{parent.title}, fine-tuned on {', '.join(s.name for s in sections)}",
        "date": datetime.date.today().isoformat(),
        "parent": {
            "title": parent.title,
            "sha256": parent.sha256,
            **{
                name: _get_entry(parent.card.get("metrics"), name)
                for name in ("pcc_all", "depth_partial_pcc")
            },
            **_select_entries(parent.card, "parent", "lineage"),
        },
        "training_data": {
            **data,
            "sections": [*_get_list(data, "sections"), *(f"{s.name} (part)" for s in sections)],
            "slide_fingerprints": {
                **_get_dict(data, "slide_fingerprints"),
                **{s.name: s.section.slide for s in sections if s.section.slide},
            },
            **_add_median_totals(data, sections),
        },
        "fine_tuning": {
            "sections": {s.name: hash_section(s.section) for s in sections},
            "settings": settings.to_json(),
            **facts,
            "read_accounts": list_accounts([s.section for s in sections]),
            "version": __version__,
        },
        "splits": FINETUNE_PROTOCOL,
        "metrics": {
            "pcc_all": after["pcc_all"],
            "ridge_pcc_all": ridge["pcc_all"],
            **_select_entries(after, "depth_partial_pcc", "ceiling", "share_of_attainable"),
            "held_out_spots": metrics.n_spots,
            **{m: dict(values) for m, values in metrics.summaries.items()},
        },
        "per_gene_pcc": {
            symbol: {"dkan": values["after"], "ridge": values["ridge"], "before": values["before"]}
            for symbol, values in metrics.pcc_per_gene.items()
        },
        "per_gene_depth_partial": {
            symbol: {
                "dkan": values["after"],
                "ridge": values["ridge"],
                "before": values["before"],
                "ceiling": values["ceiling"],
                "judged": values["judged"],
            }
            for symbol, values in metrics.depth_partial_per_gene.items()
        },
        **_select_entries(parent.card, "licence"),
    }


def build_finetune_report(
    parent: Checkpoint,
    sections: Sequence[TrainingSection],
    settings: FinetuneSettings,
    metrics: FinetuneMetrics,
    facts: dict[str, Any],
    loops: Sequence[TuningLoop],
) -> dict[str, Any]:
    """Build the report as plain JSON."""
    return {
        "format": 1,
        "kind": "fine-tuning",
        "better": metrics.is_better,
        **facts,
        "sections": [s.name for s in sections],
        "read_accounts": list_accounts([s.section for s in sections]),
        "spots_held_out": metrics.n_spots,
        "genes_better": metrics.n_genes_better,
        "summary": {m: dict(values) for m, values in metrics.summaries.items()},
        "genes_counted": metrics.n_genes,
        "decided_by": metrics.decided_by,
        "genes": [{"symbol": g, **values} for g, values in metrics.pcc_per_gene.items()],
        "per_gene_depth_partial": {
            g: dict(values) for g, values in metrics.depth_partial_per_gene.items()
        },
        "curve": {
            "parts": [loop.scope.value for loop in loops for _ in loop.curve],
            "depth_partial_before": [round_or_none(loop.initial.mean_partial, 5) for loop in loops],
            "loss": [round_or_none(loss, 5) for loop in loops for loss, _ in loop.curve],
            "depth_partial": [round_or_none(pcc, 5) for loop in loops for _, pcc in loop.curve],
        },
        "settings": settings.to_json(),
        "parent": {"title": parent.title, "sha256": parent.sha256},
        "made": collect_provenance(str(facts["command"]), str(facts["device"])),
    }


def _add_median_totals(data: dict[str, Any], sections: Sequence[TrainingSection]) -> dict[str, Any]:
    """Add the depth of the sections to the record of the parent, {} where it has none."""
    if "median_panel_totals" not in data:
        return {}
    counts = {f"{s.name} (part)": s.counts for s in sections}
    own = {name: round(c.median_total, 1) for name, c in counts.items() if c is not None}
    return {"median_panel_totals": {**_get_dict(data, "median_panel_totals"), **own}}


def _select_entries(card: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {n: card[n] for n in names if n in card}


def _get_entry(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _get_dict(data: dict[str, Any], name: str) -> dict[str, Any]:
    value = data.get(name)
    return value if isinstance(value, dict) else {}


def _get_list(data: dict[str, Any], name: str) -> list[Any]:
    value = data.get(name)
    return value if isinstance(value, list) else []
