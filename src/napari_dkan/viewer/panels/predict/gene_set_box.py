"""A gene set whose score is shown like a gene: chosen from Hallmark or a GMT file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtGui import QStandardItemModel
from qtpy.QtWidgets import QComboBox, QFileDialog, QLabel, QVBoxLayout, QWidget

from ...session.viewer_session import ViewerSession
from ...widgets.qt_utils import make_row, make_shrinkable
from ...widgets.signal_connections import SignalConnections
from ...worker import JobFailure, JobRunner

if TYPE_CHECKING:
    from ....inference.gene_set_score import GeneSetScore
    from ....quality.gene_sets import GeneSet


NO_SET, BROWSE = "score of a gene set...", "Open a GMT file..."
TOOLTIP_WIDTH = 100  # characters
MAX_MISSING_SHOWN = 5  # all are in the tooltip
FORMULA = (
    "Score of a tile: the mean of the set's genes minus the mean of control genes, on the scale of "
    "the predictions.\nControls: all other genes of the panel in the bins of 25 genes, by mean "
    "level in the training sections, that hold a gene of the set (scanpy's score_genes)."
)

# What a list of sets becomes for one checkpoint: by title, a score or why there is none.
_Entries = dict[str, "GeneSetScore | str"]


class GeneSetBox(QWidget):
    """A list of gene sets; the score of the chosen one becomes the shown gene."""

    def __init__(self, session: ViewerSession, connections: SignalConnections) -> None:
        super().__init__()
        self._session = session
        self._sets: tuple[GeneSet, ...] = ()  # of files
        self._entries: _Entries = {}
        self._runner = JobRunner("gene sets")
        self.set_combo = QComboBox()
        self.set_combo.setToolTip(FORMULA)
        make_shrinkable(self.set_combo)
        self.note_label = QLabel()
        self.note_label.setWordWrap(True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(make_row(QLabel("Set"), (self.set_combo, 1)))
        layout.addWidget(self.note_label)
        self.set_combo.activated.connect(self._on_chosen)
        connections.connect(self._start, session.checkpoint_changed)
        connections.connect(self.refresh, session.gene_changed)
        connections.on_disconnect(self._runner.close)
        self._start()

    @property
    def busy(self) -> bool:
        return self._runner.busy

    def _start(self, path: Path | None = None) -> None:
        """Match the sets, and those of a file first, to the checkpoint's panel in a thread."""
        checkpoint, sets = self._session.checkpoint, self._sets
        self._entries = {}
        self._fill()
        if checkpoint is None:
            return

        def job() -> Iterator[tuple[tuple[GeneSet, ...], _Entries]]:
            from ....quality.gene_sets import define_gene_set_scores, load_hallmark_sets, read_gmt

            known = {s.name: s for s in sets}
            known |= {s.name: s for s in (() if path is None else read_gmt(path))}
            # Those of files first, the newest sets on top.
            every = {**known, **{s.name: s for s in load_hallmark_sets() if s.name not in known}}
            levels = checkpoint.network.label_mean.cpu().numpy()
            scores, skipped = define_gene_set_scores(list(every.values()), checkpoint.panel, levels)
            entries: _Entries = {}
            for name, gene_set in every.items():
                title = gene_set.title if gene_set.title not in entries else name
                entries[title] = scores[name] if name in scores else skipped[name]
            yield tuple(known.values()), entries

        def receive(found: tuple[tuple[GeneSet, ...], _Entries]) -> None:
            self._sets, self._entries = found
            self._fill()

        def on_end(failure: JobFailure | None) -> None:
            if failure is not None:
                self._session.message.show(failure.message, warning=True)
                if path is not None:
                    self._start()  # the sets as they were

        self._runner.start(job, receive, on_end)

    def open_gmt(self, path: Path) -> None:
        """Add the sets of a file to the list."""
        self._start(path)

    def _fill(self) -> None:
        """List the sets; those without a score are grey, with the reason."""
        combo = self.set_combo
        combo.clear()
        combo.addItem(NO_SET)
        scored = [t for t, entry in self._entries.items() if not isinstance(entry, str)]
        others = [t for t in self._entries if t not in scored]
        model = combo.model()
        assert isinstance(model, QStandardItemModel)
        for title in (*scored, *others):
            entry = self._entries[title]
            if isinstance(entry, str):
                combo.addItem(title)
                item = model.item(combo.count() - 1)
                item.setEnabled(False)
                item.setToolTip(entry)
            else:
                total = len(entry.genes) + len(entry.missing)
                combo.addItem(f"{title}, {len(entry.genes)} of {total} genes", title)
                tip = f"{entry.formula}\n{', '.join(entry.genes)}"
                combo.setItemData(combo.count() - 1, tip, Qt.ItemDataRole.ToolTipRole)
        combo.addItem(BROWSE)
        combo.setEnabled(bool(self._entries))
        self.refresh()

    def _on_chosen(self, index: int) -> None:
        if self.set_combo.itemText(index) == BROWSE:
            name, _ = QFileDialog.getOpenFileName(
                self, "Gene sets", "", "Gene sets (*.gmt *.gmt.gz);;All (*)"
            )
            if name:
                self.open_gmt(Path(name))
            self.refresh()
            return
        entry = self._entries.get(self.set_combo.itemData(index))
        if entry is None or isinstance(entry, str):
            self.refresh()
        else:
            self._session.add_score(entry)

    def refresh(self) -> None:
        """Show the set of the shown gene, with the genes that the panel lacks."""
        session = self._session
        score = next((s for s in session.scores if s.symbol == session.gene), None)
        titles = [t for t, entry in self._entries.items() if entry == score]
        row = self.set_combo.findData(titles[0]) if score is not None and titles else 0
        self.set_combo.setCurrentIndex(row)
        self.note_label.setVisible(score is not None)
        if score is None:
            return
        shown = ", ".join(score.missing[:MAX_MISSING_SHOWN]) or "none of its genes"
        more = len(score.missing) - MAX_MISSING_SHOWN
        self.note_label.setText(
            f"Not in the panel: {shown}{f' and {more:,} more' if more > 0 else ''}."
        )
        lists = {
            "Genes": score.genes,
            "Controls": score.controls,
            "Not in the panel": score.missing,
        }
        lines = [f"{name}: {', '.join(symbols) or 'none'}" for name, symbols in lists.items()]
        self.note_label.setToolTip("\n".join(fill(x, TOOLTIP_WIDTH) for x in (FORMULA, *lines)))
