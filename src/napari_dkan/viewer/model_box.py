"""The checkpoint: bundled, recent, or a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import (
    QComboBox,
    QDialog,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QPlainTextEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from ..samples.bundled import bundled_checkpoints
from .combo import narrow
from .encoder_box import EncoderBox
from .lane import Failure, Lane
from .links import Links
from .memory import recent_checkpoints, remember_checkpoint
from .preferences import preferred_checkpoint
from .session import Session
from .tones import WARNING, tint
from .torch_beside_gl import import_torch

if TYPE_CHECKING:
    from ..model import Checkpoint
    from ..slide import Slide

BROWSE = "Browse..."
SEEN = "This slide trained this checkpoint: its map looks better than that of a new slide would."


class ModelBox(QWidget):
    """Chooses a checkpoint, loads it off the GUI thread, sums up its card."""

    def __init__(self, session: Session, links: Links) -> None:
        super().__init__()
        self._session = session
        self._lane = Lane("checkpoint")
        self._trouble = ""  # with the checkpoint that was preferred
        self.choice = QComboBox()
        narrow(self.choice)
        self.choice.setToolTip("Checkpoints that come along, used lately, or from a file.")
        self.summary = QLabel()
        self.summary.setWordWrap(True)
        self.seen = QLabel(SEEN)
        self.seen.setWordWrap(True)
        tint(self.seen, WARNING)
        self.card = QPushButton("card")
        self.card.setFlat(True)
        self.card.setEnabled(False)

        line = QHBoxLayout()
        line.addWidget(self.summary, 1)
        line.addWidget(self.card)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.choice)
        layout.addLayout(line)
        layout.addWidget(self.seen)
        self.encoder_box = EncoderBox(session, links)
        layout.addWidget(self.encoder_box)

        self.choice.activated.connect(self._chosen)
        self.card.clicked.connect(self.show_card)
        links.join(self.refresh, session.checkpoint_changed, session.slide_changed)
        self._bundled = {path: _title(path) for path in bundled_checkpoints()}
        self.refresh()
        first = preferred_checkpoint() or next(iter(self._bundled), None)
        if session.checkpoint is None and first is not None:
            self.load(first)

    def close_lane(self) -> None:
        self._lane.cancel()
        self.encoder_box.close_lane()

    def load(self, path: Path) -> None:
        """Load a checkpoint; on a bad file the one in use stays."""
        session = self._session
        loaded: list[Checkpoint] = []

        def job() -> Iterator[None]:
            import_torch()  # takes a second or two, so it happens here
            from ..model import load_checkpoint

            loaded.append(load_checkpoint(path))
            yield None

        def end(failure: Failure | None) -> None:
            if failure is not None:
                session.say(failure.sentence, alarming=True)
                self.refresh()
                self._without(path, failure.sentence)
                return
            if path not in self._bundled:
                remember_checkpoint(path)
            session.say(self._trouble, alarming=bool(self._trouble))
            self._trouble = ""
            session.use_checkpoint(loaded[0])

        self.summary.setText(f"Loading {path.name} ...")
        self._lane.start(job, lambda item: None, end)

    def _without(self, path: Path, sentence: str) -> None:
        """The preferred checkpoint is none: say so, beside the one that comes along."""
        if self._session.checkpoint is None and path not in self._bundled and self._bundled:
            self._trouble = sentence
            self.load(next(iter(self._bundled)))

    def refresh(self) -> None:
        checkpoint = self._session.checkpoint
        self.choice.clear()
        for path, title in self._bundled.items():
            self.choice.addItem(f"{title} (bundled)", path)
        for path in recent_checkpoints():
            self.choice.addItem(path.name, path)
        current = None if checkpoint is None else checkpoint.path
        if current is not None and self._row(current) < 0:
            self.choice.addItem(current.name, current)
        self.choice.addItem(BROWSE, None)
        if current is not None:
            self.choice.setCurrentIndex(self._row(current))
        self.card.setEnabled(checkpoint is not None)
        self.summary.setText("" if checkpoint is None else summary(checkpoint))
        slide = self._session.slide
        seen = checkpoint is not None and slide is not None and trained_on(checkpoint, slide.slide)
        self.seen.setVisible(seen)

    def _row(self, path: Path) -> int:
        paths = [self.choice.itemData(i) for i in range(self.choice.count())]
        same = [i for i, p in enumerate(paths) if p is not None and p.resolve() == path.resolve()]
        return same[0] if same else -1

    def _chosen(self, index: int) -> None:
        path = self.choice.itemData(index)
        if path is None:
            name, _ = QFileDialog.getOpenFileName(
                self, "Open a checkpoint", "", "DKAN checkpoint (*.safetensors);;All files (*)"
            )
            path = Path(name) if name else None
        if path is None:
            self.refresh()
        else:
            self.load(path)

    def show_card(self) -> None:
        """The whole card in a window of its own."""
        from ..model.checkpoint import describe

        if self._session.checkpoint is None:
            return
        dialog = QDialog(self)
        dialog.setWindowTitle("Model card")
        text = QPlainTextEdit(describe(self._session.checkpoint))
        text.setReadOnly(True)
        layout = QVBoxLayout(dialog)
        layout.addWidget(text)
        dialog.resize(640, 560)
        dialog.show()


def summary(checkpoint: Checkpoint) -> str:
    """One line: ``250 genes, PCC 0.44 (ridge 0.42)``, as the card measured it."""
    metrics = checkpoint.card.get("metrics", {})
    text = f"{len(checkpoint.panel)} genes, patch {checkpoint.patch.um:.0f} um"
    pcc = metrics.get("pcc_all") if isinstance(metrics, dict) else None
    if isinstance(pcc, int | float):
        ridge = metrics.get("ridge_pcc_all")
        beside = f" (ridge {ridge:.2f})" if isinstance(ridge, int | float) else ""
        text += f", PCC {pcc:.2f}{beside} on held-out sections"
    return text


def trained_on(checkpoint: Checkpoint, slide: Slide) -> bool:
    """Whether the card lists this slide among those the checkpoint was trained on."""
    data = checkpoint.card.get("training_data", {})
    known = data.get("slide_fingerprints", {}) if isinstance(data, dict) else {}
    return isinstance(known, dict) and slide.fingerprint() in known.values()


def _title(path: Path) -> str:
    return {"her2-breast": "HER2+ breast", "synthetic": "Synthetic tissue"}.get(
        path.stem, path.stem
    )
