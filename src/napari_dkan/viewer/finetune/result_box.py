"""What came of it: the verdict, every gene before and after, and which checkpoint to use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QButtonGroup,
    QFileDialog,
    QLabel,
    QLineEdit,
    QPushButton,
    QRadioButton,
    QVBoxLayout,
    QWidget,
)

from ...errors import DkanError
from ...training.tuning.events import Finished
from ..links import Links
from ..quality.table import FiguresTable, Rows, figures
from ..session import Session
from ..tones import GOOD, WARNING, tint
from .keeping import suggested
from .tuning import State, Tuning

COLUMNS = {
    "before": "Correlation with the measured labels on the held-out spots, before",
    "after": "The same after fine-tuning",
    "gain": "After minus before",
    "ridge": "The same of a ridge baseline that learnt from the same spots",
}


class ResultBox(QWidget):
    """Shown once there is a result."""

    def __init__(self, session: Session, tuning: Tuning, links: Links) -> None:
        super().__init__()
        self._session, self._tuning = session, tuning
        self._shown: Finished | None = None  # in the table
        self.verdict, self.others = QLabel(), QLabel()
        font = self.verdict.font()
        font.setPointSizeF(1.25 * font.pointSizeF())
        font.setBold(True)
        self.verdict.setFont(font)
        for label in (self.verdict, self.others):
            label.setWordWrap(True)
            label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.search = QLineEdit()
        self.search.setPlaceholderText("search a gene")
        self.search.setClearButtonEnabled(True)
        self.table = FiguresTable()
        self.table.setMinimumHeight(220)
        self.tuned, self.before = QRadioButton(), QRadioButton()
        self._group = QButtonGroup(self)
        self.save = QPushButton("Save as...")
        self.save.setToolTip("A file of your own; it is chosen from there and stays in the list.")
        self._build()
        self._group.buttonClicked.connect(lambda b: tuning.use(b is self.tuned))
        self.save.clicked.connect(self._ask)
        self.search.textChanged.connect(self.table.figures.search)
        self.table.picked.connect(session.set_gene)
        links.join(self.refresh, tuning.changed)
        links.join(self._chosen, session.checkpoint_changed)
        links.join(lambda: self.table.choose(session.gene), session.gene_changed)
        self.refresh()

    def _build(self) -> None:
        self._use = QWidget()
        use = QVBoxLayout(self._use)
        use.setContentsMargins(0, 0, 0, 0)
        use.addWidget(QLabel("Use this checkpoint"))
        for button in (self.tuned, self.before):
            self._group.addButton(button)
            use.addWidget(button)
        self._figures = QWidget()
        inside = QVBoxLayout(self._figures)
        inside.setContentsMargins(0, 0, 0, 0)
        inside.addWidget(self.search)
        inside.addWidget(self.table)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (self.verdict, self.others, self._use, self.save, self._figures):
            layout.addWidget(widget)

    def refresh(self) -> None:
        tuning = self._tuning
        result, kept, parent = tuning.result, tuning.kept, tuning.parent
        unsaved = tuning.state is State.UNSAVED
        left = not tuning.busy and kept is not None and tuning.tuned is not None
        self.setVisible(result is not None or unsaved or left)
        self.save.setVisible(unsaved or left)
        self._use.setVisible(left)
        self._figures.setVisible(result is not None)
        self.verdict.setVisible(result is not None)
        if kept is not None and parent is not None:
            self.tuned.setText(f"fine-tuned: {kept.stem}")
            self.tuned.setToolTip(str(kept))
            self.before.setText(f"before: {parent.title}")
        self._chosen()
        if result is None:
            self.others.setText("")
            self.others.hide()
            return
        self.verdict.setText(result.verdict[:1].upper() + result.verdict[1:])
        tint(self.verdict, GOOD if result.better else WARNING)
        self.others.setText(on_others(result.report))
        self.others.setVisible(bool(self.others.text()))
        if result is not self._shown:
            self._shown = result
            self.table.show_rows(rows_of(result.report), sort_by=3)
            self.table.choose(self._session.gene)

    def _chosen(self) -> None:
        """Neither is marked when a third checkpoint is in use."""
        tuning, now = self._tuning, self._session.checkpoint
        self._group.setExclusive(False)
        self.tuned.setChecked(now is not None and now is tuning.tuned)
        self.before.setChecked(now is not None and now is tuning.parent)
        self._group.setExclusive(True)

    def _ask(self) -> None:
        kept, parent = self._tuning.kept, self._tuning.parent
        if kept is None or parent is None or parent.path is None:
            return
        name, _ = QFileDialog.getSaveFileName(
            self,
            "Save the fine-tuned checkpoint",
            str(suggested(parent.path, kept)),
            "DKAN checkpoint (*.safetensors)",
        )
        if name:
            self.save_as(Path(name))

    def save_as(self, path: Path) -> None:
        """Save under this name; what is wrong with it is said in the panel."""
        if path.suffix != ".safetensors":
            path = path.with_name(f"{path.name}.safetensors")
        try:
            self._tuning.save_as(path)
        except DkanError as error:
            self._tuning.said.emit(str(error), True)


def rows_of(report: dict[str, Any]) -> Rows:
    """Every gene before, after and by ridge; genes that joined the panel say so."""
    new = report.get("new_genes", {}).get("per_gene_pcc", {})
    known = {str(g["symbol"]): g for g in report.get("genes", [])}
    genes = {**known, **new}

    def values(key: str) -> list[float | None]:
        return [g.get(key) for g in genes.values()]

    pairs = zip(values("before"), values("after"), strict=True)
    gains = [None if a is None or b is None else b - a for a, b in pairs]
    notes = tuple("new in the panel; before: by its text" if g in new else "" for g in genes)
    return Rows(
        tuple(genes),
        (
            figures("before", COLUMNS["before"], values("before")),
            figures("after", COLUMNS["after"], values("after")),
            figures("gain", COLUMNS["gain"], gains, "+.3f"),
            figures("ridge", COLUMNS["ridge"], values("ridge")),
        ),
        notes if new else (),
    )


def on_others(report: dict[str, Any]) -> str:
    """What changed on sections that taught nothing: no forgetting is hidden."""
    told = []
    for name, change in report.get("others", {}).items():
        pair = [change.get(f"pcc_all_{when}") for when in ("before", "after")]
        words = ["none" if v is None else f"{v:.2f}" for v in pair]
        told.append(f"{name} {words[0]} -> {words[1]}")
    return f"PCC-ALL on sections that taught nothing: {', '.join(told)}" if told else ""
