"""Compare measured and predicted expression at the spots of one section, and find the regions of largest error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import SpotsError
from ..expression.panel import Panel
from ..model.checkpoint.checkpoint_card import is_trained_on
from ..spatial.spots import Spots
from . import gene_metrics as gene_table
from .block_bootstrap import PccIntervals
from .gene_metrics import ComparisonSummary, GeneMetrics

if TYPE_CHECKING:
    from ..inference.prediction import Prediction
    from ..model.checkpoint.checkpoint_file import Checkpoint
    from ..training.data.measured_section import MeasuredSection


Float32Array = NDArray[np.float32]
DkanRidgePair = tuple[float | None, float | None]
_MIN_SPOTS = 3
_CAVEAT_BELOW_SPOTS = 30
_CAVEAT_BELOW_GENES = 20


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

    @property
    def residual(self) -> Float32Array:
        """(N, G) predicted minus measured."""
        return self.predicted - self.measured

    @cached_property
    def metrics_per_gene(self) -> tuple[GeneMetrics, ...]:
        """One row per gene, in the order of the panel."""
        return gene_table.compute_gene_metrics(self)

    @cached_property
    def summary(self) -> ComparisonSummary:
        """All genes together."""
        return gene_table.summarize_comparison(self)

    @cached_property
    def pcc_intervals(self) -> PccIntervals:
        """Intervals of the correlations."""
        return gene_table.bootstrap_comparison(self)

    @cached_property
    def caveats(self) -> tuple[str, ...]:
        """What to know before the figures are believed, in plain sentences; () when all is well."""
        return tuple(_iter_caveats(self))


def compare_with_measured(
    checkpoint: Checkpoint,
    measured: MeasuredSection,
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
        seen_in_training = is_trained_on(checkpoint.card, made_by.get("slide_fingerprint", ""))
    spots, name = measured.labeled_spots(), measured.name
    _require_same_spots(prediction.target.spots, spots, name)
    genes = [g for g in measured.panel.genes if g.symbol in prediction.panel]
    if not genes:
        raise SpotsError(f"The prediction has none of the genes that {name} measures.")
    done = prediction.predicted_mask
    if int(done.sum()) < _MIN_SPOTS:
        raise SpotsError(
            f"{int(done.sum())} of {name}'s spots are predicted; a correlation takes at least "
            f"{_MIN_SPOTS}."
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
        ridge = _align_ridge(ridge, checkpoint, measured)[done][:, columns]
    every_spot = measured.labels.rows[done]
    return Comparison(
        name,
        Panel(tuple(genes)),
        spots.take(done),
        labels,
        values,
        ridge,
        _zero_fraction(measured, every_spot)[columns],
        prediction.select_predicted(),
        measured.missing_genes,
        measured.labels.dropped_spots,
        tuple(n for n, there in zip(spots.names, done, strict=True) if not there),
        seen_in_training,
        held_out_pcc_from_card(checkpoint.card),
        (None, None) if measured.missing_genes else _held_out_mse_from_card(checkpoint.card),
    )


def held_out_pcc_from_card(card: Mapping[str, Any]) -> dict[str, DkanRidgePair]:
    """By gene, the PCC of (DKAN, ridge) on held-out sections that a card states; {} without.

    A card is another's text: what is no number between -1 and 1 is left out.
    """
    stated = card.get("per_gene_pcc")
    if not isinstance(stated, dict):
        return {}
    return {
        str(symbol): (_valid_pcc(each.get("dkan")), _valid_pcc(each.get("ridge")))
        for symbol, each in stated.items()
        if isinstance(each, dict)
    }


def _held_out_mse_from_card(card: Mapping[str, Any]) -> DkanRidgePair:
    metrics = card.get("metrics")
    each = [metrics.get(m) if isinstance(metrics, dict) else None for m in ("dkan", "ridge")]
    dkan, ridge = (_finite_float(m.get("mse")) if isinstance(m, dict) else None for m in each)
    return dkan, ridge


def _finite_float(value: Any) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value)
    return float(value) if known else None


def _valid_pcc(value: Any) -> float | None:
    number = _finite_float(value)
    return number if number is not None and -1 <= number <= 1 else None


def _require_same_spots(predicted: Spots, measured: Spots, name: str) -> None:
    if len(predicted) != len(measured) or not np.allclose(
        predicted.xy, measured.xy, rtol=0, atol=1.0
    ):
        raise SpotsError(
            f"The prediction is of other spots ({len(predicted)}) than those {name} measures "
            f"({len(measured)}); predict at its spots."
        )


def _align_ridge(
    values: NDArray[np.floating], checkpoint: Checkpoint, measured: MeasuredSection
) -> Float32Array:
    """(N, G) of the measured genes, from these or from all of the checkpoint."""
    values = np.asarray(values, np.float32)
    if values.shape == (len(measured.labels.rows), len(checkpoint.panel)):
        values = values[:, list(measured.panel_rows)]
    if values.shape != measured.labels.values.shape or not np.isfinite(values).all():
        raise SpotsError(
            f"The ridge baseline does not fit the spots and genes of {measured.name}; "
            "predict it at its spots."
        )
    return values


def _zero_fraction(measured: MeasuredSection, rows: NDArray[np.integer]) -> NDArray[np.float64]:
    """(G,) share of these rows of the section without a count."""
    counts: Any = measured.data.X[rows]
    nonzero = np.asarray((counts > 0).sum(axis=0)).ravel()
    return 1 - nonzero / len(rows)


def _iter_caveats(c: Comparison) -> Iterator[str]:
    if c.seen_in_training:
        yield "The checkpoint was trained on this slide, so its figures here measure no quality."
    if len(c.spots) < _CAVEAT_BELOW_SPOTS:
        yield (
            f"{len(c.spots)} spots are few: a correlation of "
            f"{1.96 / np.sqrt(len(c.spots) - 1):.2f} is within chance."
        )
    if len(c.panel) < _CAVEAT_BELOW_GENES:
        yield (
            f"Only {len(c.panel)} of the checkpoint's {len(c.panel) + len(c.unmeasured_genes)} genes "
            f"{'is' if len(c.panel) == 1 else 'are'} measured here; labels are counts per total "
            "of the panel, so theirs are on another scale and only correlations compare."
        )
    elif c.unmeasured_genes:
        yield (
            f"{len(c.unmeasured_genes)} of the checkpoint's {len(c.panel) + len(c.unmeasured_genes)} genes are not "
            f"measured here: {_format_names(c.unmeasured_genes)}."
        )
    constant = np.ptp(c.measured, axis=0) < 1e-9
    if constant.any():
        yield (
            f"{_gene_count_text(constant)} the same at all measured spots, so without a correlation: "
            f"{_format_names([s for s, k in zip(c.panel.symbols, constant, strict=True) if k])}."
        )
    constant = np.ptp(c.predicted, axis=0) < 1e-9
    if constant.any():
        yield (
            f"{_gene_count_text(constant)} predicted the same at all spots, so without a correlation: "
            f"{_format_names([s for s, k in zip(c.panel.symbols, constant, strict=True) if k])}."
        )
    if c.spots_without_counts:
        yield (
            f"{len(c.spots_without_counts)} spot{'s have' if len(c.spots_without_counts) > 1 else ' has'} no count of any "
            f"panel gene and {'are' if len(c.spots_without_counts) > 1 else 'is'} left out: {_format_names(c.spots_without_counts)}."
        )
    if c.unreadable_spots:
        yield (
            f"{len(c.unreadable_spots)} spots are left out because the slide is damaged there: "
            f"{_format_names(c.unreadable_spots)}."
        )


def _gene_count_text(which: NDArray[np.bool_]) -> str:
    number = int(which.sum())
    return f"{number} gene{'s are' if number > 1 else ' is'}"


def _format_names(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


_NEIGHBOUR_REACH = (
    1.6  # times the nearest distance: diagonals of a jittered square, not a second ring
)
_MIN_REGION_SPOTS = 3  # spots of a region


@dataclass(frozen=True)
class ErrorRegion:
    """A neighbourhood of spots.

    x, y : its middle in level-0 px. radius : px from there to the edge of its outermost spot.
    rows : of the comparison's spots. mse : mean squared residual there.
    times_average : that error over the section's.
    """

    x: float
    y: float
    radius: float
    spot_rows: NDArray[np.int64]
    mse: float
    relative_mse: float


def find_error_regions(
    comparison: Comparison, gene: str | None = None, max_regions: int = 3
) -> tuple[ErrorRegion, ...]:
    """The neighbourhoods of highest mean squared residual, worst first.

    gene : its symbol, None for the mean over all genes. count : at most so many.

    A neighbourhood is a spot and those next to it, so a region is never a single unlucky spot.
    Regions share no spot, and all are worse than the section's average. Raises SpotsError when
    the gene is not compared.
    """
    from scipy.sparse import coo_matrix, eye
    from scipy.spatial import cKDTree

    square = np.asarray(comparison.residual, np.float64) ** 2
    error = square.mean(axis=1) if gene is None else square[:, comparison.panel.row(gene)]
    average, xy, number = float(error.mean()), comparison.spots.xy, len(error)
    if average <= 0 or number <= _MIN_REGION_SPOTS:
        return ()
    tree = cKDTree(xy)
    pitch = float(np.median(tree.query(xy, k=2)[0][:, 1]))
    a, b = tree.query_pairs(_NEIGHBOUR_REACH * pitch, output_type="ndarray").T
    near = coo_matrix((np.ones(len(a)), (a, b)), shape=(number, number))
    near = (near + near.T + eye(number)).tocsr()
    size = np.diff(near.indptr)
    mse = near @ error / size
    taken = np.zeros(number, bool)
    found: list[ErrorRegion] = []
    for spot in np.argsort(-mse, kind="stable"):
        if len(found) == max_regions or mse[spot] <= average:
            break
        rows = np.sort(near.indices[near.indptr[spot] : near.indptr[spot + 1]]).astype(np.int64)
        if size[spot] < _MIN_REGION_SPOTS or taken[rows].any():
            continue
        taken[rows] = True
        x, y = xy[rows].mean(axis=0)
        radius = float(np.linalg.norm(xy[rows] - (x, y), axis=1).max()) + pitch / 2
        worse = float(mse[spot] / average)
        found.append(ErrorRegion(float(x), float(y), radius, rows, float(mse[spot]), worse))
    return tuple(found)
