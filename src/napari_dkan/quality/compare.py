"""Comparison: what was measured at spots beside what was predicted there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import SpotsError
from ..expression.panel import Panel
from ..model.card import trained_on
from ..spatial.spots import Spots
from . import gene_table
from .gene_table import GeneFigures, Summary
from .intervals import Resampled

if TYPE_CHECKING:
    from ..inference.prediction import Prediction
    from ..model.checkpoint import Checkpoint
    from ..training.measured import Measured

Array = NDArray[np.float32]
Expected = tuple[float | None, float | None]
_FEWEST_SPOTS = 3
_FEW_SPOTS = 30
_FEW_GENES = 20


@dataclass(frozen=True, eq=False)
class Comparison:
    """Measured and predicted expression of the same genes at the same spots.

    name : of the section. panel : the G genes that are both measured and predicted.
    spots : (N) in the order of all rows below.
    measured, predicted : (N, G) float32 on the label scale; the measured labels are smoothed
        over array neighbours as the checkpoint's training labels were.
    ridge : (N, G) float32, the ridge baseline's prediction, None without one.
    zeros : (G,) share of these spots without a raw count of the gene.
    prediction : of all genes of the checkpoint, at these spots.
    missing : genes of the checkpoint that the section does not measure.
    dropped : spots left out because they have no count of any panel gene.
    unread : spots left out because nothing is predicted there: the slide is damaged.
    seen_in_training : the slide is one the checkpoint was trained on.
    expected : by gene, PCC of (DKAN, ridge) on held-out sections by the checkpoint's card.
    expected_mse : of (DKAN, ridge) there, where all genes of the panel are measured.
    """

    name: str
    panel: Panel
    spots: Spots
    measured: Array
    predicted: Array
    ridge: Array | None
    zeros: NDArray[np.float64]
    prediction: Prediction
    missing: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    seen_in_training: bool = False
    expected: Mapping[str, Expected] = field(default_factory=dict)
    expected_mse: Expected = (None, None)

    @property
    def residual(self) -> Array:
        """(N, G) predicted minus measured."""
        return self.predicted - self.measured

    @cached_property
    def table(self) -> tuple[GeneFigures, ...]:
        """One row per gene, in the order of the panel."""
        return gene_table.gene_table(self)

    @cached_property
    def summary(self) -> Summary:
        """All genes together."""
        return gene_table.summary(self)

    @cached_property
    def resampled(self) -> Resampled:
        """Intervals of the correlations."""
        return gene_table.resampled(self)

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What to know before the figures are believed, in plain sentences; () when all is well."""
        return tuple(_notes(self))


def compare(
    checkpoint: Checkpoint,
    measured: Measured,
    prediction: Prediction,
    ridge: NDArray[np.floating] | None = None,
    seen_in_training: bool | None = None,
) -> Comparison:
    """Put a section beside the checkpoint's prediction at its labelled spots.

    measured : of `measured_section` with this checkpoint. prediction : at `measured.spots()`.
    ridge : (N, G') on the label scale, of all genes of the checkpoint or of the measured ones.
    seen_in_training : None to tell it by the prediction's slide and the checkpoint's card.

    Raises SpotsError when the prediction is of another checkpoint or other spots or lacks the
    measured genes, when fewer than three spots are predicted, or numbers are missing.
    """
    made_by = prediction.provenance
    sha256 = made_by.get("checkpoint_sha256")
    if sha256 and checkpoint.sha256 and sha256 != checkpoint.sha256:
        raise SpotsError(
            f"The prediction was made by another checkpoint than {checkpoint.title}; predict again."
        )
    if seen_in_training is None:
        seen_in_training = trained_on(checkpoint.card, made_by.get("slide_fingerprint", ""))
    spots, name = measured.spots(), measured.name
    _same_spots(prediction.target.spots, spots, name)
    genes = [g for g in measured.panel.genes if g.symbol in prediction.panel]
    if not genes:
        raise SpotsError(f"The prediction has none of the genes that {name} measures.")
    done = prediction.done
    if int(done.sum()) < _FEWEST_SPOTS:
        raise SpotsError(
            f"{int(done.sum())} of {name}'s spots are predicted; a correlation takes at least "
            f"{_FEWEST_SPOTS}."
        )
    columns = [measured.panel.row(g.symbol) for g in genes]
    labels = measured.labels.values[done][:, columns]
    values = prediction.values[done][:, [prediction.panel.row(g.symbol) for g in genes]]
    unpredicted = int((~np.isfinite(values)).any(axis=0).sum())
    if unpredicted:
        raise SpotsError(
            f"{unpredicted} of {len(genes)} genes are not predicted at all spots of {name}; "
            "predict all genes there."
        )
    if not np.isfinite(labels).all():
        raise SpotsError(f"{name} has labels that are no numbers; give raw counts.")
    if ridge is not None:
        ridge = _ridge(ridge, checkpoint, measured)[done][:, columns]
    every_spot = measured.labels.rows[done]
    return Comparison(
        name,
        Panel(tuple(genes)),
        spots.take(done),
        labels,
        values,
        ridge,
        _zeros(measured, every_spot)[columns],
        prediction.finished(),
        measured.missing,
        measured.labels.dropped,
        tuple(n for n, there in zip(spots.names, done, strict=True) if not there),
        seen_in_training,
        expected_pcc(checkpoint.card),
        (None, None) if measured.missing else _expected_mse(checkpoint.card),
    )


def expected_pcc(card: Mapping[str, Any]) -> dict[str, Expected]:
    """By gene, the PCC of (DKAN, ridge) on held-out sections that a card states; {} without.

    A card is another's text: what is no number between -1 and 1 is left out.
    """
    stated = card.get("per_gene_pcc")
    if not isinstance(stated, dict):
        return {}
    return {
        str(symbol): (_pcc(each.get("dkan")), _pcc(each.get("ridge")))
        for symbol, each in stated.items()
        if isinstance(each, dict)
    }


def _expected_mse(card: Mapping[str, Any]) -> Expected:
    metrics = card.get("metrics")
    each = [metrics.get(m) if isinstance(metrics, dict) else None for m in ("dkan", "ridge")]
    dkan, ridge = (_number(m.get("mse")) if isinstance(m, dict) else None for m in each)
    return dkan, ridge


def _number(value: Any) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value)
    return float(value) if known else None


def _pcc(value: Any) -> float | None:
    number = _number(value)
    return number if number is not None and -1 <= number <= 1 else None


def _same_spots(predicted: Spots, measured: Spots, name: str) -> None:
    if len(predicted) != len(measured) or not np.allclose(
        predicted.xy, measured.xy, rtol=0, atol=1.0
    ):
        raise SpotsError(
            f"The prediction is of other spots ({len(predicted)}) than those {name} measures "
            f"({len(measured)}); predict at its spots."
        )


def _ridge(values: NDArray[np.floating], checkpoint: Checkpoint, measured: Measured) -> Array:
    """(N, G) of the measured genes, from these or from all of the checkpoint."""
    values = np.asarray(values, np.float32)
    if values.shape == (len(measured.labels.rows), len(checkpoint.panel)):
        values = values[:, list(measured.rows)]
    if values.shape != measured.labels.values.shape or not np.isfinite(values).all():
        raise SpotsError(
            f"The ridge baseline does not fit the spots and genes of {measured.name}; "
            "predict it at its spots."
        )
    return values


def _zeros(measured: Measured, rows: NDArray[np.integer]) -> NDArray[np.float64]:
    """(G,) share of these rows of the section without a count."""
    counts: Any = measured.data.X[rows]
    nonzero = np.asarray((counts > 0).sum(axis=0)).ravel()
    return 1 - nonzero / len(rows)


def _notes(c: Comparison) -> Iterator[str]:
    if c.seen_in_training:
        yield "The checkpoint was trained on this slide, so its figures here measure no quality."
    if len(c.spots) < _FEW_SPOTS:
        yield (
            f"{len(c.spots)} spots are few: a correlation of "
            f"{1.96 / np.sqrt(len(c.spots) - 1):.2f} is within chance."
        )
    if len(c.panel) < _FEW_GENES:
        yield (
            f"Only {len(c.panel)} of the checkpoint's {len(c.panel) + len(c.missing)} genes "
            f"{'is' if len(c.panel) == 1 else 'are'} measured here; labels are counts per total "
            "of the panel, so theirs are on another scale and only correlations compare."
        )
    elif c.missing:
        yield (
            f"{len(c.missing)} of the checkpoint's {len(c.panel) + len(c.missing)} genes are not "
            f"measured here: {_some(c.missing)}."
        )
    constant = np.ptp(c.measured, axis=0) < 1e-9
    if constant.any():
        yield (
            f"{_count(constant)} the same at all measured spots, so without a correlation: "
            f"{_some([s for s, k in zip(c.panel.symbols, constant, strict=True) if k])}."
        )
    constant = np.ptp(c.predicted, axis=0) < 1e-9
    if constant.any():
        yield (
            f"{_count(constant)} predicted the same at all spots, so without a correlation: "
            f"{_some([s for s, k in zip(c.panel.symbols, constant, strict=True) if k])}."
        )
    if c.dropped:
        yield (
            f"{len(c.dropped)} spot{'s have' if len(c.dropped) > 1 else ' has'} no count of any "
            f"panel gene and {'are' if len(c.dropped) > 1 else 'is'} left out: {_some(c.dropped)}."
        )
    if c.unread:
        yield (
            f"{len(c.unread)} spots are left out because the slide is damaged there: "
            f"{_some(c.unread)}."
        )


def _count(which: NDArray[np.bool_]) -> str:
    number = int(which.sum())
    return f"{number} gene{'s are' if number > 1 else ' is'}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
