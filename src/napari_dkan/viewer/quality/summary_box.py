"""The verdict over all genes: one sentence, a small table, the distribution, the worst places."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from ..combo import narrow
from ..links import Links
from ..session import Session
from ..tones import LINK, WARNING, on_theme, tint, tone_of
from .figures import Figures
from .outline import Outline
from .plots import Distribution
from .state import Quality
from .table import UNKNOWN

if TYPE_CHECKING:
    from ...quality.gene_table import MethodFigures, Summary
    from ...quality.regions import Region

SEEN = "This slide was trained on: its figures are no measure of quality."
COLUMNS = {
    "ALL": ("pcc_all", "mean correlation over all genes"),
    "HPG": ("pcc_hpg", "the 50 best predicted genes"),
    "HEG": ("pcc_heg", "the 50 genes of highest mean"),
    "HVG": ("pcc_hvg", "the 50 genes of highest variance"),
    "MSE": ("mse", "mean squared error on the label scale"),
}


class SummaryBox(QWidget):
    """What the comparison comes to, beside ridge and what the card leads to expect."""

    def __init__(self, session: Session, quality: Quality, links: Links, made: Figures) -> None:
        super().__init__()
        self._session, self._quality, self._made = session, quality, made
        self.outline = Outline(session)
        self.verdict = QLabel()
        self.seen = QLabel(SEEN)
        tint(self.seen, WARNING)
        self.notes = QLabel()
        self.figures = QLabel()
        self.figures.setTextFormat(Qt.TextFormat.RichText)
        self.figures.setToolTip("\n".join(f"{k}: {v[1]}" for k, v in COLUMNS.items()))
        for label in (self.verdict, self.seen, self.notes):
            label.setWordWrap(True)
            label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.distribution = Distribution()
        self.which = QComboBox()
        self.which.addItems(["over all genes", "of this gene"])
        narrow(self.which)
        self.worst = QLabel()
        self.worst.setWordWrap(True)
        self.worst.setToolTip("Click to look at these spots; their mean squared error is given.")
        self.worst.setTextFormat(Qt.TextFormat.RichText)
        reach = Qt.TextInteractionFlag
        self.worst.setTextInteractionFlags(
            reach.LinksAccessibleByMouse | reach.LinksAccessibleByKeyboard
        )
        self._regions = QWidget()
        line = QHBoxLayout(self._regions)
        line.setContentsMargins(0, 0, 0, 0)
        line.addWidget(QLabel("Largest errors"))
        line.addWidget(self.which, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (
            self.seen,
            self.verdict,
            self.figures,
            self.notes,
            self.distribution,
            self._regions,
            self.worst,
        ):
            layout.addWidget(widget)
        self.which.activated.connect(lambda row: made.show_regions(bool(row)))
        self.worst.linkActivated.connect(lambda link: self.go(int(link)))
        links.join(self.refresh, made.changed)
        links.join(self._list_regions, made.regions_changed)
        links.join(self._mark, session.gene_changed)
        on_theme(self.worst, self._list_regions)
        self.refresh()

    def refresh(self) -> None:
        summary, comparison = self._made.summary, self._made.comparison
        there = summary is not None
        for widget in (self.figures, self.distribution, self._regions):
            widget.setVisible(there)
        self.seen.setVisible(summary is not None and summary.seen_in_training)
        if summary is None or comparison is None:
            self.verdict.setText("Computing the figures ..." if self._made.busy else "")
            self.verdict.setVisible(self._made.busy)
            self.notes.hide()
            self.outline.remove()
            return
        self.verdict.setVisible(True)
        # being trained on is said above, in orange
        self.verdict.setText(replace(summary, seen_in_training=False).sentence())
        notes = [n for n in comparison.notes if not (summary.seen_in_training and "trained" in n)]
        self.notes.setText("\n".join(notes))
        self.notes.setVisible(bool(notes))
        self.figures.setText(as_html(summary))
        table = comparison.table
        pcc, ridge = (np.array([getattr(f, n) for f in table]) for n in ("pcc", "ridge_pcc"))
        self.distribution.show_figures(pcc, ridge)
        self._mark()

    def _mark(self) -> None:
        comparison, gene = self._made.comparison, self._session.gene
        if comparison is not None:
            known = gene in comparison.panel
            row = comparison.panel.row(gene or "") if known else None
            self.distribution.mark(float("nan") if row is None else comparison.table[row].pcc)

    def _list_regions(self) -> None:
        colour = tone_of(self, LINK)
        links = [
            f'{i + 1}. <a href="{i}" style="color: {colour};">{_described(region)}</a>'
            for i, region in enumerate(self._made.regions)
        ]
        self.worst.setText("<br>".join(links))
        self.worst.setVisible(bool(links))

    def go(self, number: int) -> None:
        """Look at one of the worst regions."""
        comparison, section = self._made.comparison, self._quality.section
        if comparison is not None and section is not None and section.slide is not None:
            self.outline.show(self._made.regions[number], comparison.spots, section.slide)


def as_html(summary: Summary) -> str:
    """The figures of each method as a small table."""
    titles = "".join(f'<td align="right" style="padding-left: 9px;">{t}</td>' for t in COLUMNS)
    rows = [f"<tr><td>PCC</td>{titles}</tr>"]
    methods = (
        ("<b>DKAN</b>", summary.dkan),
        ("ridge", summary.ridge),
        ("card: DKAN", summary.card),
        ("card: ridge", summary.card_ridge),
    )
    rows += [_row(name, method) for name, method in methods if method is not None]
    return f'<table cellspacing="0">{"".join(rows)}</table>'


def _row(name: str, method: MethodFigures) -> str:
    cells = []
    for key, _ in COLUMNS.values():
        value = getattr(method, key)
        text = UNKNOWN if value is None or value != value else f"{value:.2f}"
        if key == "mse" and text != UNKNOWN:
            text = f"{value:.3f}"
        cells.append(f'<td align="right" style="padding-left: 9px;">{text}</td>')
    return f"<tr><td>{name}</td>{''.join(cells)}</tr>"


def _described(region: Region) -> str:
    return f"{len(region.rows)} spots, {region.times_average:.1f} times the average"
