"""What a comparison of two regions says: sentences, the table of genes, and its file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ....atomic_write import atomic_write
from ...widgets.metrics_table import (
    MetricColumn,
    MetricsTableData,
    make_metric_column,
    table_to_csv,
)
from .comparison_job import ComparisonResult

SIGNIFICANT = 0.05
ONE_PATIENT = "Tiles of one slide are one patient: p speaks of this slide only."
FROM_DOMAINS = (
    "Domains were found in the same values, so p is too small; the size of a difference counts."
)


def describe_result(result: ComparisonResult) -> str:
    """Return how much was compared, and what the test is worth."""
    request, compared = result.request, result.predicted
    c = compared.comparison
    a, b = request.name_a, request.name_b
    lines = [f"{a}: {c.n_a:,} tiles; {b}: {c.n_b:,}."]
    if compared.n_both:
        lines[0] += f" {compared.n_both:,} are in both and count for the smaller region."
    if c.is_tested:
        n = int((c.p_adjusted < SIGNIFICANT).sum())
        lines.append(f"{n:,} of {len(c.symbols):,} differ (adjusted p < 0.05). {ONE_PATIENT}")
    else:
        lines.append(
            f"Not tested: too few independent blocks of tiles ({c.blocks_a:.1f} and "
            f"{c.blocks_b:.1f}; 2 are needed). {ONE_PATIENT}"
        )
    if request.from_domains:
        lines.append(FROM_DOMAINS)
    if result.measured is not None:
        m = result.measured
        text = f"Measured: {m.comparison.n_a:,} and {m.comparison.n_b:,} spots"
        if np.isfinite(m.depth_a + m.depth_b):
            text += f", median counts {m.depth_a:,.0f} and {m.depth_b:,.0f}"
        lines.append(text + ("." if m.comparison.is_tested else "; not tested."))
    elif result.measured_reason:
        lines.append(f"Measured: {result.measured_reason}")
    return "\n".join(lines)


def make_comparison_table(result: ComparisonResult) -> MetricsTableData:
    """Make a table with a row per gene, predicted and, where there is one, measured."""
    c = result.predicted.comparison
    a, b = short_name(result.request.name_a), short_name(result.request.name_b)
    columns = [
        make_metric_column(
            "diff.", f"Mean of {a} minus mean of {b}, predicted", c.difference, "+.2f"
        ),
        make_metric_column("SD", "The same in standard deviations of a tile", c.effect, "+.1f"),
        _p_column("p adj.", c.p_adjusted),
        make_metric_column(
            "A > B",
            "Probability that a tile of A is above one of B; 50 % is no difference",
            c.superiority,
            ".0%",
        ),
    ]
    if result.measured is not None:
        m = result.measured.comparison
        columns += [
            make_metric_column(
                "meas. diff.",
                "The same, measured",
                _aligned(c.symbols, m.symbols, m.difference),
                "+.2f",
            ),
            _p_column("meas. p", _aligned(c.symbols, m.symbols, m.p_adjusted)),
        ]
    return MetricsTableData(c.symbols, tuple(columns), c.symbols)  # long names: in the tooltip


def make_export_table(result: ComparisonResult) -> MetricsTableData:
    """Make the table of a file, with all columns."""
    symbols = result.predicted.comparison.symbols
    columns: list[MetricColumn] = []
    for prefix, compared in (("predicted", result.predicted), ("measured", result.measured)):
        if compared is None:
            continue
        c = compared.comparison
        for name in (
            "mean_a",
            "mean_b",
            "difference",
            "effect",
            "superiority",
            "p_value",
            "p_adjusted",
        ):
            values = _aligned(symbols, c.symbols, getattr(c, name))
            columns.append(make_metric_column(f"{prefix}_{name}", "", values))
    return MetricsTableData(symbols, tuple(columns))


def write_comparison(path: Path, result: ComparisonResult) -> None:
    """Write all columns of both comparisons as CSV, below lines about their origin.

    Raises
    ------
    OutputError
        When the file cannot be written.
    """
    notes = [describe_result(result), *_provenance_lines(result)]
    lines = "".join(f"# {line}\n" for note in notes for line in note.splitlines())
    with atomic_write(path) as temporary:
        temporary.write_text(lines + table_to_csv(make_export_table(result)), encoding="utf-8")


def _provenance_lines(result: ComparisonResult) -> list[str]:
    from ....quality.region_comparison import N_PERMUTATIONS, PERMUTATION_SEED
    from ....training.block_bootstrap import BLOCK_SIDE_PITCHES

    tiles = result.request.tiles
    record = {} if tiles is None else tiles.provenance
    names = ("version", "checkpoint", "checkpoint_sha256", "slide", "slide_fingerprint", "mpp")
    lines = [f"{name}: {record[name]}" for name in names if name in record]
    lines.append(
        f"test: permutation of blocks of {BLOCK_SIDE_PITCHES} pitches, {N_PERMUTATIONS} drawings, "
        f"seed {PERMUTATION_SEED}, inflation {result.predicted.comparison.inflation:.2f}, "
        "Benjamini-Hochberg"
    )
    return lines


def _p_column(title: str, p_adjusted: NDArray[np.float64]) -> MetricColumn:
    def show(row: int) -> str:
        p = p_adjusted[row]
        return "\N{EN DASH}" if np.isnan(p) else f"{p:.3f}" if p >= 0.001 else f"{p:.0e}"

    tooltip = (
        "From drawing blocks of neighbouring tiles again, adjusted for the number of genes "
        "(Benjamini-Hochberg)"
    )
    return MetricColumn(title, tooltip, p_adjusted, show)


def _aligned(
    symbols: tuple[str, ...], others: tuple[str, ...], values: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Values of ``others`` in the order of ``symbols``, NaN where there is none."""
    by_symbol = dict(zip(others, values.tolist(), strict=True))
    return np.array([by_symbol.get(s, np.nan) for s in symbols], np.float64)


def short_name(name: str) -> str:
    """Shorten the name of a region for headings and plots."""
    return name if len(name) <= 24 else f"{name[:23]}\N{HORIZONTAL ELLIPSIS}"
