"""The genes: a table that can be searched and sorted, and the chosen gene spot by spot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from qtpy.QtWidgets import (
    QApplication,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from ...errors import DkanError
from ...files import written_whole
from ..links import Links
from ..session import Session
from .figures import Figures
from .gene_columns import exported
from .plots import Scatter
from .state import Quality
from .table import FiguresTable, as_csv

ROWS_SEEN = 9


class GenesBox(QWidget):
    """Selecting a row shows the gene; a gene chosen elsewhere selects its row."""

    def __init__(self, session: Session, quality: Quality, links: Links, made: Figures) -> None:
        super().__init__()
        self._session, self._quality, self._figures = session, quality, made
        self.search = QLineEdit()
        self.search.setPlaceholderText("search genes")
        self.search.setClearButtonEnabled(True)
        self.copy, self.save = QPushButton("Copy"), QPushButton("Save CSV...")
        self.copy.setToolTip("Copy the whole table, to paste into a spreadsheet")
        self.table = FiguresTable()
        self.table.setFixedHeight((ROWS_SEEN + 3) * (self.table.fontMetrics().height() + 6))
        self.legend = QLabel(
            "Tinted: ridge does better (here, or by the card on held-out sections), or the 95 % "
            "interval does not lie above 0."
        )
        self.legend.setWordWrap(True)
        self.absent = QLabel()
        self.absent.setWordWrap(True)
        line = QHBoxLayout()
        line.addWidget(self.search, 1)
        line.addWidget(self.copy)
        line.addWidget(self.save)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(line)
        for widget in (self.table, self.legend, self.absent):
            layout.addWidget(widget)
        self.search.textChanged.connect(self.table.figures.search)
        self.table.picked.connect(self._picked)
        self.copy.clicked.connect(self._copy)
        self.save.clicked.connect(self._save)
        links.join(self.refresh, made.changed)
        links.join(self._gene, session.gene_changed)
        self.refresh()

    def refresh(self) -> None:
        self.table.show_rows(self._figures.rows)
        comparison = self._figures.comparison
        self.setEnabled(comparison is not None)
        missing = () if comparison is None else comparison.missing
        self.absent.setVisible(bool(missing))
        few = ", ".join(missing[:6]) + (", ..." if len(missing) > 6 else "")
        self.absent.setText(f"Not measured here: {len(missing):,} of the panel's genes ({few}).")
        self._gene()

    def _gene(self) -> None:
        self.table.choose(self._session.gene)

    def _picked(self, symbol: str) -> None:
        try:
            self._session.set_gene(symbol)
        except DkanError as error:
            self._session.say(str(error), alarming=True)

    def _copy(self) -> None:
        if (comparison := self._figures.comparison) is not None:
            QApplication.clipboard().setText(as_csv(exported(comparison)).replace(",", "\t"))

    def _save(self) -> None:
        name, _ = QFileDialog.getSaveFileName(
            self, "Save the gene table", "genes.csv", "Table (*.csv)"
        )
        if name:
            self.save_csv(Path(name))

    def save_csv(self, path: Path) -> None:
        """Write the table; what goes wrong is said in the panel."""
        comparison = self._figures.comparison
        if comparison is None:
            return
        try:
            with written_whole(path) as temporary:
                temporary.write_text(as_csv(exported(comparison)), encoding="utf-8")
        except DkanError as error:
            self._session.say(str(error), alarming=True)
        else:
            self._session.say(f"{path.name} is written.")


class ScatterBox(QWidget):
    """The chosen gene at all spots, measured against predicted, and the chosen spot in it."""

    def __init__(self, session: Session, quality: Quality, links: Links) -> None:
        super().__init__()
        self._session, self._quality = session, quality
        self.scatter = Scatter()
        self.spot = QLabel()
        self.spot.setWordWrap(True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.scatter)
        layout.addWidget(self.spot)
        self.scatter.picked.connect(quality.choose_spot)
        links.join(self.refresh, session.gene_changed, quality.comparison_changed)
        links.join(self._spot, quality.spot_changed)
        self.refresh()

    def refresh(self) -> None:
        comparison, gene = self._quality.comparison, self._session.gene
        known = comparison is not None and gene in comparison.panel
        self.scatter.setVisible(known)
        if comparison is not None and known:
            column = comparison.panel.row(gene or "")
            names = comparison.spots.names
            self.scatter.show_values(
                comparison.measured[:, column], comparison.predicted[:, column], names
            )
        else:
            self.scatter.show_values(np.empty(0), np.empty(0))
        self._spot()

    def _spot(self) -> None:
        """The chosen spot's two numbers, in words."""
        comparison, gene, row = self._quality.comparison, self._session.gene, self._quality.spot
        self.scatter.choose(row)
        if comparison is None:
            self.spot.setText("")
        elif gene not in comparison.panel:
            self.spot.setText(f"{gene} is not measured in this section.")
        elif row is None:
            self.spot.setText("Click a dot or a spot on the slide to see its two values.")
        else:
            column = comparison.panel.row(gene or "")
            measured = float(comparison.measured[row, column])
            predicted = float(comparison.predicted[row, column])
            name = comparison.spots.names[row] if comparison.spots.names else str(row + 1)
            self.spot.setText(
                f"Spot {name}: {gene} measured {measured:.2f}, predicted {predicted:.2f} "
                f"({predicted - measured:+.2f})"
            )
