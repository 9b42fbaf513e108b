"""Gene sets: scores of measured and predicted values alike, and their maps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from ..combo import narrow
from ..lane import Failure, Lane
from ..links import Links
from ..session import Session
from .state import Quality
from .table import FiguresTable, Rows, figures, number
from .value_maps import Places, ValueMap, ValueMaps, shared_limits

if TYPE_CHECKING:
    from ...quality.compare import Comparison
    from ...quality.gene_sets import SetScores

HALLMARK, BROWSE = "Hallmark (MSigDB)", "Open a GMT file..."
SKIPPED_SHOWN = 2  # the others are in the tooltip


@dataclass(frozen=True)
class _Scored:
    """Scores of the same sets, titles by name, and (S,) how far the scores correlate."""

    comparison: Comparison
    titles: dict[str, str]
    measured: SetScores
    predicted: SetScores
    pcc: NDArray[np.float64]


class SetsBox(QWidget):
    """A list of gene sets; choosing one shows its measured and its predicted score."""

    def __init__(self, session: Session, quality: Quality, links: Links, maps: ValueMaps) -> None:
        super().__init__()
        self._session, self._quality = session, quality
        self._lane, self._maps = Lane("gene sets"), maps
        self._scored: _Scored | None = None
        self._places: Places | None = None
        self._files: dict[str, Path] = {}
        self.source = QComboBox()
        self.source.addItems([HALLMARK, BROWSE])
        narrow(self.source)
        self.start = QPushButton("Score")
        self.start.setToolTip(
            "scanpy's score_genes, on measured and predicted values alike: the mean of a set's "
            "genes over that of others of like expression"
        )
        self.table = FiguresTable("Gene set", long_names=True)
        self.table.setFixedHeight(9 * (self.table.fontMetrics().height() + 6))
        self.said = QLabel()
        self.said.setWordWrap(True)
        line = QHBoxLayout()
        line.addWidget(self.source, 1)
        line.addWidget(self.start)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(line)
        layout.addWidget(self.table)
        layout.addWidget(self.said)
        self.source.activated.connect(self._source)
        self.start.clicked.connect(self.score)
        self.table.picked.connect(self.show_set)
        links.join(self.refresh, quality.comparison_changed)
        self.refresh()

    def close_lane(self) -> None:
        self._lane.cancel()

    @property
    def busy(self) -> bool:
        return self._lane.busy

    def refresh(self) -> None:
        """Scores of another comparison are none of this one."""
        self._lane.cancel()
        if self._places is not None and self._maps.places is self._places:
            self._maps.remove()
        self._scored = self._places = None
        self.table.hide()
        self.said.setText("")
        self.setEnabled(self._quality.comparison is not None)
        self.start.setEnabled(True)

    def _source(self, index: int) -> None:
        if self.source.itemText(index) != BROWSE:
            self.score()
            return
        name, _ = QFileDialog.getOpenFileName(self, "Gene sets", "", "Gene sets (*.gmt);;All (*)")
        if name:
            self.open_gmt(Path(name))
        else:
            self.source.setCurrentIndex(0)

    def open_gmt(self, path: Path) -> None:
        """Take the sets of a file and score them."""
        if path.name not in self._files:
            self.source.insertItem(self.source.count() - 1, path.name)
        self._files[path.name] = path
        self.source.setCurrentText(path.name)
        self.score()

    def score(self) -> None:
        comparison, path = self._quality.comparison, self._files.get(self.source.currentText())
        if comparison is None:
            return

        def job() -> Iterator[_Scored]:
            from ...quality.gene_sets import hallmark, read_gmt, set_scores
            from ...training.metrics import gene_pcc

            sets = hallmark() if path is None else read_gmt(path)
            panel, both = comparison.panel, (comparison.measured, comparison.predicted)
            measured = set_scores(both[0], panel, sets, beside=both[1])
            predicted = set_scores(both[1], panel, sets, beside=both[0])
            pcc = gene_pcc(predicted.scores, measured.scores)
            yield _Scored(comparison, {s.name: s.title for s in sets}, measured, predicted, pcc)

        self.said.setText("Scoring ...")
        self.start.setEnabled(False)
        self._lane.start(job, self._take, self._end)

    def _end(self, failure: Failure | None) -> None:
        self.start.setEnabled(True)
        if failure is not None:
            self.said.setText(failure.sentence)

    def _take(self, scored: _Scored) -> None:
        self._scored = scored
        names = scored.measured.names
        used = [len(scored.measured.used[name]) for name in names]
        columns = (
            figures("PCC", "Correlation of the measured and the predicted score", scored.pcc),
            figures("genes", "Genes of the set that are in the panel and measured", used, ".0f"),
        )
        notes = tuple(", ".join(scored.measured.used[name]) for name in names)
        shown = tuple(scored.titles[name] for name in names)
        self.table.show_rows(Rows(shown, columns, notes))
        self.table.setVisible(bool(names))
        skipped = scored.measured.skipped
        self.said.setText(_skipped(scored))
        self.said.setToolTip("\n".join(f"{scored.titles[n]}: {why}" for n, why in skipped.items()))

    def show_set(self, shown: str) -> None:
        """Both score maps of a set, on one scale."""
        scored, section = self._scored, self._quality.section
        if scored is None or section is None or section.slide is None:
            return
        column = [scored.titles[n] for n in scored.measured.names].index(shown)
        measured, predicted = (s.scores[:, column] for s in (scored.measured, scored.predicted))
        limits, colours = shared_limits(measured, predicted), self._session.settings.colormap
        if self._places is None:
            self._places = Places(section.slide, scored.comparison.spots)
        self._maps.show(
            self._places,
            [
                ValueMap(f"{shown} measured score", measured, limits, colours),
                ValueMap(f"{shown} predicted score", predicted, limits, colours),
            ],
            f"{shown}\nmeasured and predicted score: r = {number(float(scored.pcc[column]))}",
        )


def _skipped(scored: _Scored) -> str:
    """How many sets are not scored, and why the first of them are not."""
    skipped = scored.measured.skipped
    if not skipped:
        return ""
    some = list(skipped.items())[:SKIPPED_SHOWN]
    reasons = "; ".join(f"{scored.titles[name]}: {why}" for name, why in some)
    more = "; ..." if len(skipped) > SKIPPED_SHOWN else "."
    return f"{len(skipped)} sets are not scored. {reasons}{more}"
