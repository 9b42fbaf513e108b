"""Box with the summary over all genes: verdict, metrics, histogram and worst regions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox, QLabel, QWidget

from ....layers.spot_layers import RegionOutline
from ....widgets.correlation_plots import CorrelationHistogram
from ....widgets.metrics_table import NO_VALUE
from ....widgets.qt_utils import fill_column, make_row, make_shrinkable, make_text_label
from ....widgets.signal_connections import SignalConnections
from ....widgets.theme_colors import (
    LINK_COLOR,
    WARNING_COLOR,
    color_for_theme,
    connect_theme_change,
    set_text_color,
)
from ..data.comparison_metrics import ComparisonMetrics

if TYPE_CHECKING:
    from .....quality.comparison_summary import ComparisonSummary, MethodMetrics
    from .....quality.error_regions import ErrorRegion
    from ..data.comparison_worker import EarlyComparison


TRAINED_ON_SLIDE = "This slide was trained on: its figures are no measure of quality."
SUMMARY_COLUMNS = {
    "partial": (
        "depth_partial_pcc",
        "mean correlation over all genes, with the number of molecules of each spot regressed out",
    ),
    "share": ("share_of_attainable", "of what counting noise leaves to be had"),
    "dev.": (
        "deviance_explained",
        "deviance of the raw counts explained, from the mean profile of the training sections; "
        "a dash where the checkpoint does not record it",
    ),
    "ALL": ("pcc_all", "mean plain correlation over all genes"),
    "HPG": ("pcc_hpg", "the 50 best predicted genes"),
    "HEG": ("pcc_heg", "the 50 genes of highest mean"),
    "HVG": ("pcc_hvg", "the 50 genes of highest variance"),
    "MSE": ("mse", "mean squared error on the label scale"),
}


_PARTIAL_NAMES = ("partial", "ridge_partial")


_BESIDE_DEPTH = ("depth_partial_pcc", "share_of_attainable", "deviance_explained")


class SummaryBox(QWidget):
    """Verdict and metrics, next to those of ridge and those expected by the card.

    While spots are still predicted it shows the verdict and metrics of those predicted so far,
    and says so.
    """

    def __init__(self, connections: SignalConnections, metrics: ComparisonMetrics) -> None:
        super().__init__()
        self._metrics, self._model = metrics, metrics.model
        self._session = session = metrics.session
        self.outline = RegionOutline(session)
        self.early_label = make_text_label(selectable=True)
        set_text_color(self.early_label, WARNING_COLOR)
        self.verdict_label = make_text_label(selectable=True)
        self.trained_label = make_text_label(TRAINED_ON_SLIDE, selectable=True)
        set_text_color(self.trained_label, WARNING_COLOR)
        self.shallow_label = make_text_label(selectable=True)
        set_text_color(self.shallow_label, WARNING_COLOR)
        self.notes_label = make_text_label(selectable=True)
        self.metrics_label = QLabel()
        self.metrics_label.setTextFormat(Qt.TextFormat.RichText)
        self.metrics_label.setToolTip("\n".join(f"{k}: {v[1]}" for k, v in SUMMARY_COLUMNS.items()))
        self.histogram = CorrelationHistogram()
        self.region_scope_combo = QComboBox()
        self.region_scope_combo.addItems(["over all genes", "of this gene"])
        make_shrinkable(self.region_scope_combo)
        self.worst_regions_label = make_text_label()
        self.worst_regions_label.setToolTip(
            "Click to look at these spots; their mean squared error is given."
        )
        self.worst_regions_label.setTextFormat(Qt.TextFormat.RichText)
        flags = Qt.TextInteractionFlag
        self.worst_regions_label.setTextInteractionFlags(
            flags.LinksAccessibleByMouse | flags.LinksAccessibleByKeyboard
        )
        self._regions_row = QWidget()
        fill_column(
            self._regions_row, make_row(QLabel("Largest errors"), (self.region_scope_combo, 1))
        )
        fill_column(
            self,
            self.early_label,
            self.trained_label,
            self.shallow_label,
            self.verdict_label,
            self.metrics_label,
            self.notes_label,
            self.histogram,
            self._regions_row,
            self.worst_regions_label,
        )
        self.region_scope_combo.activated.connect(lambda row: metrics.set_region_scope(bool(row)))
        self.worst_regions_label.linkActivated.connect(lambda link: self.show_region(int(link)))
        connections.connect(self.refresh, metrics.changed, self._model.early_changed)
        connections.connect(self._list_regions, metrics.regions_changed)
        connections.connect(self._mark_gene, session.gene_changed)
        connect_theme_change(self.worst_regions_label, self._list_regions)
        self.refresh()

    def refresh(self) -> None:
        summary, comparison = self._metrics.summary, self._metrics.comparison
        early = self._model.early if summary is None else None
        if early is not None:
            comparison, summary = early.comparison, early.comparison.summary
        self.early_label.setText("" if early is None else describe_early(early))
        self.early_label.setVisible(early is not None)
        self.metrics_label.setVisible(summary is not None)
        for widget in (self.histogram, self._regions_row):
            widget.setVisible(summary is not None and early is None)
        self.trained_label.setVisible(summary is not None and summary.seen_in_training)
        shallow = None if summary is None or comparison is None else comparison.shallow
        self.shallow_label.setText(shallow or "")
        self.shallow_label.setVisible(shallow is not None)
        if summary is None or comparison is None:
            self.verdict_label.setText("Computing the figures ..." if self._metrics.busy else "")
            self.verdict_label.setVisible(self._metrics.busy)
            self.notes_label.hide()
            self.outline.remove()
            return
        self.verdict_label.setVisible(True)
        # trained_label already says whether the slide was trained on
        self.verdict_label.setText(replace(summary, seen_in_training=False).format_verdict())
        notes = [n for n in comparison.caveats if not (summary.seen_in_training and "trained" in n)]
        self.notes_label.setText("\n".join(notes))
        self.notes_label.setVisible(bool(notes))
        self.metrics_label.setText(summary_to_html(summary))
        if early is not None:
            return
        table = comparison.metrics_per_gene
        names = ("pcc", "ridge_pcc") if comparison.reference is None else _PARTIAL_NAMES
        pcc, ridge = (np.array([getattr(gene, name) for gene in table]) for name in names)
        self.histogram.set_correlations(pcc, ridge, summary.method)
        self._mark_gene()

    def _mark_gene(self) -> None:
        comparison, gene = self._metrics.comparison, self._session.gene
        if comparison is None:
            return
        pcc = float("nan")
        if gene is not None and gene in comparison.panel:
            metrics = comparison.metrics_per_gene[comparison.panel.row(gene)]
            pcc = metrics.pcc if comparison.reference is None else metrics.partial
        self.histogram.set_marked_pcc(pcc)

    def _list_regions(self) -> None:
        color = color_for_theme(self, LINK_COLOR)
        links = [
            f'{i + 1}. <a href="{i}" style="color: {color};">{_describe_region(region)}</a>'
            for i, region in enumerate(self._metrics.worst_regions)
        ]
        self.worst_regions_label.setText("<br>".join(links))
        self.worst_regions_label.setVisible(bool(links))

    def show_region(self, index: int) -> None:
        """Show one of the worst regions on the canvas."""
        comparison, section = self._metrics.comparison, self._model.section
        if comparison is not None and section is not None and section.slide is not None:
            self.outline.show(self._metrics.worst_regions[index], comparison.spots, section.slide)


def describe_early(early: EarlyComparison) -> str:
    """Say of how many spots early figures are, and that they are not the final ones."""
    return (
        f"Preliminary: from {len(early.comparison.spots):,} of {early.n_spots:,} spots so far, "
        "drawn at random. The figures of all spots replace these and can then be saved."
    )


def summary_to_html(summary: ComparisonSummary) -> str:
    """Format the metrics of each method as a small HTML table."""
    columns = {
        title: key
        for title, (key, _) in SUMMARY_COLUMNS.items()
        if summary.depth_alone is not None or key not in _BESIDE_DEPTH
    }
    titles = "".join(f'<td align="right" style="padding-left: 5px;">{t}</td>' for t in columns)
    rows = [f"<tr><td></td>{titles}</tr>"]
    methods = (
        (f"<b>{summary.method}</b>", summary.dkan),
        ("ridge", summary.ridge),
        ("depth alone", summary.depth_alone),
        (f"card: {summary.method}", summary.card_dkan),
        ("card: ridge", summary.card_ridge),
    )
    rows += [
        _method_row(name, method, tuple(columns.values()))
        for name, method in methods
        if method is not None
    ]
    return f'<table cellspacing="0">{"".join(rows)}</table>'


def _method_row(name: str, method: MethodMetrics, columns: tuple[str, ...]) -> str:
    cells = []
    for key in columns:
        value = getattr(method, key)
        text = NO_VALUE if value is None or value != value else f"{value:.2f}"
        if text != NO_VALUE:
            text = f"{value:.3f}" if key == "mse" else text
            text = f"{value:.0%}" if key == "share_of_attainable" else text
        cells.append(f'<td align="right" style="padding-left: 5px;">{text}</td>')
    return f"<tr><td>{name}</td>{''.join(cells)}</tr>"


def _describe_region(region: ErrorRegion) -> str:
    return f"{len(region.spot_rows)} spots, {region.relative_mse:.1f} times the average"
