"""Compare measured and predicted expression at the spots of a section."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import SpotsError
from ..expression.panel import Panel
from ..expression.readers.read_account import ReadAccount, account_of
from ..model.checkpoint.checkpoint_card import is_trained_on
from ..model.methods.method_configs import DKAN_METHOD, TITLES
from ..spatial.spots import Spots, have_same_positions
from ..training.block_bootstrap import PccIntervals, bootstrap_pcc
from ..training.depth_reference import (
    DepthReference,
    describe_shallow_section,
    make_depth_reference,
)
from .comparison_summary import ComparisonSummary, summarize_comparison
from .gene_metrics import (
    MIN_SPOTS_FOR_PCC,
    BesideDepth,
    DkanRidgePair,
    GeneMetrics,
    compute_gene_metrics,
)

if TYPE_CHECKING:
    from ..inference.prediction import Prediction
    from ..model.checkpoint.checkpoint_file import Checkpoint
    from ..training.data.measured_section import MeasuredSection


Float32Array = NDArray[np.float32]
_CAVEAT_BELOW_SPOTS = 30
_CAVEAT_BELOW_GENES = 20


@dataclass(frozen=True, eq=False)
class Comparison:
    """Measured and predicted expression of the same genes at the same spots.

    Attributes
    ----------
    name : str
        Name of the section.
    panel : Panel
        The G genes that are both measured and predicted.
    spots : Spots
        The N spots, in the order of all rows below.
    measured, predicted : (N, G) float32 arrays
        On the label scale. The measured labels are smoothed over array neighbours like the
        training labels of the checkpoint.
    ridge : (N, G) float32 array or None
        Prediction of the ridge baseline.
    zero_fraction : (G,) array
        Share of these spots without a raw count of the gene.
    prediction : Prediction
        All genes of the checkpoint at these spots.
    unmeasured_genes : tuple of str
        Genes of the checkpoint that the section does not measure.
    spots_without_counts : tuple of str
        Spots left out because they have no count of any panel gene.
    unreadable_spots : tuple of str
        Spots left out because the slide is damaged there.
    seen_in_training : bool
        Whether the checkpoint was trained on this slide.
    held_out_pcc : mapping
        By gene, PCC of (DKAN, ridge) on held-out sections, from the card of the checkpoint.
    held_out_mse : tuple
        MSE of (DKAN, ridge) on held-out sections, where all genes of the panel are measured.
    account : ReadAccount
        What was read of the section, and what was left out.
    reference : DepthReference or None
        Counts behind the labels of these spots and genes; None where they are not known.
    held_out_partial : mapping
        As `held_out_pcc`, depth-partial; {} where the card does not record it.
    shallow : str or None
        A sentence where far fewer molecules were caught than in the training sections.
    method : str
        Name of the checkpoint's method.
    """

    name: str
    panel: Panel
    spots: Spots
    measured: Float32Array
    predicted: Float32Array
    ridge: Float32Array | None
    zero_fraction: NDArray[np.float64]
    prediction: Prediction
    unmeasured_genes: tuple[str, ...] = ()
    spots_without_counts: tuple[str, ...] = ()
    unreadable_spots: tuple[str, ...] = ()
    seen_in_training: bool = False
    held_out_pcc: Mapping[str, DkanRidgePair] = field(default_factory=dict)
    held_out_mse: DkanRidgePair = (None, None)
    account: ReadAccount = field(default_factory=ReadAccount)
    reference: DepthReference | None = None
    held_out_partial: Mapping[str, DkanRidgePair] = field(default_factory=dict)
    shallow: str | None = None
    method: str = TITLES[DKAN_METHOD]

    @property
    def residual(self) -> Float32Array:
        """Predicted minus measured, (N, G)."""
        return self.predicted - self.measured

    @cached_property
    def metrics_per_gene(self) -> tuple[GeneMetrics, ...]:
        """Metrics of each gene, in the order of the panel."""
        return compute_gene_metrics(
            self.panel.symbols,
            self.predicted,
            self.measured,
            self.zero_fraction,
            self.pcc_intervals,
            self.ridge,
            self.held_out_pcc,
            self.beside_depth,
        )

    @cached_property
    def summary(self) -> ComparisonSummary:
        """All genes together."""
        return summarize_comparison(
            self.panel.symbols,
            self.predicted,
            self.measured,
            self.pcc_intervals,
            self.ridge,
            self.held_out_pcc,
            self.held_out_mse,
            self.seen_in_training,
            self.beside_depth,
            self.method,
        )

    @cached_property
    def beside_depth(self) -> BesideDepth | None:
        """What metrics beside depth are computed from; None where the counts are not known."""
        if self.reference is None:
            return None
        intervals = bootstrap_pcc(
            self.predicted, self.measured, self.spots, depth=self.reference.depth
        )
        return BesideDepth(self.reference, intervals, self.held_out_partial)

    @cached_property
    def pcc_intervals(self) -> PccIntervals:
        """Intervals of the correlations."""
        return bootstrap_pcc(self.predicted, self.measured, self.spots)

    @cached_property
    def caveats(self) -> tuple[str, ...]:
        """Sentences about the limits of these metrics; () when there are none."""
        return tuple(_iter_caveats(self))


def compare_with_measured(
    checkpoint: Checkpoint,
    measured: MeasuredSection,
    prediction: Prediction,
    ridge: NDArray[np.floating] | None = None,
    seen_in_training: bool | None = None,
    rows: NDArray[np.integer] | None = None,
) -> Comparison:
    """Compare the labels of a section with the prediction at its labelled spots.

    Parameters
    ----------
    measured : MeasuredSection
        The section with labels of this checkpoint.
    prediction : Prediction
        At `measured.labeled_spots()`.
    ridge : (N, G') array, optional
        Ridge baseline on the label scale, of all genes of the checkpoint or of the measured ones;
        NaN is allowed at spots that are not compared.
    seen_in_training : bool, optional
        None decides by the slide of the prediction and the card of the checkpoint.
    rows : (M,) array, optional
        The labelled spots to compare, all that are predicted by default. Depth is averaged over
        the neighbours among all labelled spots.

    Raises
    ------
    SpotsError
        If the prediction is of another checkpoint or of other spots or lacks the measured genes,
        if fewer than three spots are predicted, or if numbers are missing.
    """
    provenance = prediction.provenance
    sha256 = provenance.get("checkpoint_sha256")
    if sha256 and checkpoint.sha256 and sha256 != checkpoint.sha256:
        raise SpotsError(
            f"The prediction was made by another checkpoint than {checkpoint.title}; predict again."
        )
    if seen_in_training is None:
        seen_in_training = is_trained_on(checkpoint.card, provenance.get("slide_fingerprint", ""))
    spots, name = measured.labeled_spots(), measured.name
    _require_same_spots(prediction.target.spots, spots, name)
    genes = [g for g in measured.panel.genes if g.symbol in prediction.panel]
    if not genes:
        raise SpotsError(f"The prediction has none of the genes that {name} measures.")
    asked = np.ones(len(spots), bool) if rows is None else np.isin(np.arange(len(spots)), rows)
    unreadable = asked & ~prediction.predicted_mask
    predicted = asked & prediction.predicted_mask
    if int(predicted.sum()) < MIN_SPOTS_FOR_PCC:
        raise SpotsError(
            f"{int(predicted.sum())} of {name}'s spots are predicted; a correlation takes at least "
            f"{MIN_SPOTS_FOR_PCC}."
        )
    columns = [measured.panel.row(g.symbol) for g in genes]
    labels = measured.labels.values[predicted][:, columns]
    values = prediction.values[predicted][:, [prediction.panel.row(g.symbol) for g in genes]]
    unpredicted = int((~np.isfinite(values)).any(axis=0).sum())
    if unpredicted:
        raise SpotsError(
            f"{unpredicted} of {len(genes)} genes are not predicted at all spots of {name}; "
            "predict all genes there."
        )
    if not np.isfinite(labels).all():
        raise SpotsError(f"{name} has labels that are no numbers; give raw counts.")
    if ridge is not None:
        ridge = _align_ridge(ridge, checkpoint, measured, predicted)[:, columns]
    card, method = checkpoint.card, checkpoint.network.config.method
    return Comparison(
        name,
        Panel(tuple(genes)),
        spots.take(predicted),
        labels,
        values,
        ridge,
        _zero_fraction(measured, measured.labels.rows[predicted])[columns],
        prediction.take(predicted),
        unmeasured_genes=measured.missing_genes,
        spots_without_counts=measured.labels.dropped_spots,
        unreadable_spots=tuple(
            spot for spot, lost in zip(spots.names, unreadable, strict=True) if lost
        ),
        seen_in_training=seen_in_training,
        held_out_pcc=held_out_pcc_from_card(card, method=method),
        held_out_mse=(
            (None, None) if measured.missing_genes else _held_out_mse_from_card(card, method)
        ),
        account=account_of(measured.data),
        reference=replace(
            make_depth_reference(card, measured.labels.counts, measured.panel),
            rows=np.flatnonzero(predicted),
            genes=np.array(columns),
        ),
        held_out_partial=held_out_pcc_from_card(card, "per_gene_depth_partial", method),
        shallow=describe_shallow_section(card, measured.labels.counts, measured.panel),
        method=TITLES[method],
    )


def held_out_pcc_from_card(
    card: Mapping[str, Any], entry: str = "per_gene_pcc", method: str = DKAN_METHOD
) -> dict[str, DkanRidgePair]:
    """Return the PCC of (method, ridge) on held-out sections by gene, as the card states it.

    Cards come from files of others: values that are no numbers from -1 to 1 become None.

    Parameters
    ----------
    entry : str
        Entry of the card: `per_gene_pcc`, or `per_gene_depth_partial`.
    method : str
        Of the checkpoint.
    """
    pcc_by_gene = card.get(entry)
    if not isinstance(pcc_by_gene, dict):
        return {}
    return {
        str(symbol): (_valid_pcc(methods.get(method)), _valid_pcc(methods.get("ridge")))
        for symbol, methods in pcc_by_gene.items()
        if isinstance(methods, dict)
    }


def _held_out_mse_from_card(card: Mapping[str, Any], method: str) -> DkanRidgePair:
    metrics = card.get("metrics")
    if not isinstance(metrics, dict):
        return None, None
    methods = metrics.get(method), metrics.get("ridge")
    dkan, ridge = (_finite_float(m.get("mse")) if isinstance(m, dict) else None for m in methods)
    return dkan, ridge


def _finite_float(value: Any) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value)
    return float(value) if known else None


def _valid_pcc(value: Any) -> float | None:
    number = _finite_float(value)
    return number if number is not None and -1 <= number <= 1 else None


def _require_same_spots(predicted: Spots, measured: Spots, name: str) -> None:
    if not have_same_positions(predicted, measured):
        raise SpotsError(
            f"The prediction is of other spots ({len(predicted)}) than those {name} measures "
            f"({len(measured)}); predict at its spots."
        )


def _align_ridge(
    values: NDArray[np.floating],
    checkpoint: Checkpoint,
    measured: MeasuredSection,
    compared: NDArray[np.bool_],
) -> Float32Array:
    """Measured genes (M, G) at the compared spots, from these or all genes of the checkpoint."""
    values = np.asarray(values, np.float32)
    if values.shape == (len(measured.labels.rows), len(checkpoint.panel)):
        values = values[:, list(measured.panel_rows)]
    fits = values.shape == measured.labels.values.shape
    if not fits or not np.isfinite(values[compared]).all():
        raise SpotsError(
            f"The ridge baseline does not fit the spots and genes of {measured.name}; "
            "predict it at its spots."
        )
    return values[compared]


def _zero_fraction(measured: MeasuredSection, rows: NDArray[np.integer]) -> NDArray[np.float64]:
    """Share (G,) of these rows of the section without a count."""
    counts: Any = measured.data.X[rows]
    nonzero = np.asarray((counts > 0).sum(axis=0)).ravel()
    return 1 - nonzero / len(rows)


def _iter_caveats(comparison: Comparison) -> Iterator[str]:
    n_spots, n_genes = len(comparison.spots), len(comparison.panel)
    unmeasured = comparison.unmeasured_genes
    n_checkpoint_genes = n_genes + len(unmeasured)
    if comparison.seen_in_training:
        yield "The checkpoint was trained on this slide, so its figures here measure no quality."
    if n_spots < _CAVEAT_BELOW_SPOTS:
        yield (
            f"{n_spots} spots are few: a correlation of "
            f"{1.96 / np.sqrt(n_spots - 1):.2f} is within chance."
        )
    if n_genes < _CAVEAT_BELOW_GENES:
        yield (
            f"Only {n_genes} of the checkpoint's {n_checkpoint_genes} genes "
            f"{'is' if n_genes == 1 else 'are'} measured here; labels are counts per total "
            "of the panel, so theirs are on another scale and only correlations compare."
        )
    elif unmeasured:
        yield (
            f"{len(unmeasured)} of the checkpoint's {n_checkpoint_genes} genes are not "
            f"measured here: {_format_names(unmeasured)}."
        )
    for values, state in (
        (comparison.measured, "the same at all measured spots"),
        (comparison.predicted, "predicted the same at all spots"),
    ):
        constant = np.flatnonzero(np.ptp(values, axis=0) < 1e-9)
        if len(constant):
            verb = "genes are" if len(constant) > 1 else "gene is"
            names = _format_names([comparison.panel.symbols[row] for row in constant])
            yield f"{len(constant)} {verb} {state}, so without a correlation: {names}."
    dropped = comparison.spots_without_counts
    if dropped:
        have, are = ("s have", "are") if len(dropped) > 1 else (" has", "is")
        yield (
            f"{len(dropped)} spot{have} no count of any panel gene and {are} left out: "
            f"{_format_names(dropped)}."
        )
    unreadable = comparison.unreadable_spots
    if unreadable:
        yield (
            f"{len(unreadable)} spots are left out because the slide is damaged there: "
            f"{_format_names(unreadable)}."
        )


def _format_names(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
