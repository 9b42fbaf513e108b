"""Selection of the checkpoint: bundled, recent, or from a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QStandardItemModel
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

from ....model.methods.method_configs import DKAN_METHOD, TITLES
from ....samples.bundled_checkpoints import list_bundled_checkpoints
from ...session.user_history import (
    add_recent_checkpoint,
    list_recent_checkpoints,
    load_checkpoint_methods,
)
from ...session.viewer_session import ViewerSession
from ...session.viewer_settings import get_preferred_checkpoint
from ...widgets.gl_compat import import_torch
from ...widgets.qt_utils import make_shrinkable
from ...widgets.signal_connections import SignalConnections
from ...widgets.theme_colors import WARNING_COLOR, set_text_color
from ...worker import JobFailure, JobRunner
from .encoder_weights_box import EncoderWeightsBox

if TYPE_CHECKING:
    from ....model import Checkpoint
    from ....slide import Slide


BROWSE_ENTRY = "Browse..."
TRAINED_ON_WARNING = "Trained on this slide: new ones do worse."
TRAINED_ON_DETAIL = "Its map looks better than that of a slide that the model has not seen."


class ModelBox(QWidget):
    """Selects a checkpoint, loads it in a thread and summarizes its card.

    Attributes
    ----------
    trained_on_label : QLabel
    encoder_weights_box : EncoderWeightsBox
        The owner places both where they are always in sight.
    """

    changed = Signal()

    def __init__(self, session: ViewerSession, connections: SignalConnections) -> None:
        super().__init__()
        self._session = session
        self._runner = JobRunner("checkpoint")
        self._load_error = ""  # of the preferred checkpoint
        self.checkpoint_combo = QComboBox()
        make_shrinkable(self.checkpoint_combo)
        self.checkpoint_combo.setToolTip(
            "Checkpoints that come along, used lately, or from a file."
        )
        self.summary_label = QLabel()
        self.summary_label.setWordWrap(True)
        self.trained_on_label = QLabel(TRAINED_ON_WARNING)
        self.trained_on_label.setWordWrap(True)
        self.trained_on_label.setToolTip(TRAINED_ON_DETAIL)
        set_text_color(self.trained_on_label, WARNING_COLOR)
        self.card_button = QPushButton("card")
        self.card_button.setFlat(True)
        self.card_button.setEnabled(False)

        line = QHBoxLayout()
        line.addWidget(self.summary_label, 1)
        line.addWidget(self.card_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.checkpoint_combo)
        layout.addLayout(line)
        self.encoder_weights_box = EncoderWeightsBox(session, connections)

        self.checkpoint_combo.activated.connect(self._on_choice)
        self.card_button.clicked.connect(self.show_card)
        connections.connect(self.refresh, session.checkpoint_changed, session.slide_changed)
        self._bundled = {path: _display_title(path) for path in list_bundled_checkpoints()}
        self.refresh()
        first = get_preferred_checkpoint() or next(iter(self._bundled), None)
        if session.checkpoint is None and first is not None:
            self.load(first)

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is being loaded."""
        return self._runner.busy

    def stop_jobs(self) -> None:
        """Cancel loading and downloading."""
        self._runner.cancel()
        self.encoder_weights_box.stop_jobs()

    def load(self, path: Path) -> None:
        """Load a checkpoint; after an error the current one stays in use."""
        session = self._session
        loaded: list[Checkpoint] = []

        def job() -> Iterator[None]:
            import_torch()  # takes seconds, so not in the GUI thread
            from ....inference.device_choice import resolve_device_name
            from ....model import load_checkpoint

            loaded.append(load_checkpoint(path))
            resolve_device_name("auto")  # tries the GPU, which takes a second or two as well
            yield None

        def on_end(failure: JobFailure | None) -> None:
            if failure is not None:
                session.message.show(failure.message, warning=True)
                self.refresh()
                self._fall_back_to_bundled(path, failure.message)
                return
            if path not in self._bundled:
                add_recent_checkpoint(path, loaded[0].network.config.method)
            session.message.show(self._load_error, warning=bool(self._load_error))
            self._load_error = ""
            session.set_checkpoint(loaded[0])

        self.summary_label.setText(f"Loading {path.name} ...")
        self._runner.start(job, lambda item: None, on_end)
        self.changed.emit()

    def _fall_back_to_bundled(self, path: Path, message: str) -> None:
        """Load the bundled checkpoint if the preferred one failed, and show the error."""
        if self._session.checkpoint is None and path not in self._bundled and self._bundled:
            self._load_error = message
            self.load(next(iter(self._bundled)))

    def refresh(self) -> None:
        """Follow checkpoint and slide."""
        checkpoint = self._session.checkpoint
        current = None if checkpoint is None else checkpoint.path
        self._list_checkpoints()
        if current is not None:
            self.checkpoint_combo.setCurrentIndex(self._find_row(current))
        self.card_button.setEnabled(checkpoint is not None)
        self.summary_label.setText("" if checkpoint is None else summarize_checkpoint(checkpoint))
        slide = self._session.slide
        trained_on = (
            checkpoint is not None and slide is not None and is_trained_on(checkpoint, slide.slide)
        )
        self.trained_on_label.setVisible(trained_on)
        self.changed.emit()

    def _list_checkpoints(self) -> None:
        """List the known checkpoints by method, under headings where there are several."""
        checkpoint = self._session.checkpoint
        listed = {path: f"{title} (bundled)" for path, title in self._bundled.items()}
        listed |= {path: path.name for path in list_recent_checkpoints() if path not in listed}
        remembered = load_checkpoint_methods()
        method_of = {path: remembered.get(str(path.resolve()), DKAN_METHOD) for path in listed}
        if checkpoint is not None and checkpoint.path is not None:
            known = next((p for p in listed if p.resolve() == checkpoint.path.resolve()), None)
            path = known or checkpoint.path
            listed.setdefault(path, path.name)
            method_of[path] = checkpoint.network.config.method
        combo = self.checkpoint_combo
        combo.clear()
        for method, title in TITLES.items():
            paths = [path for path in listed if method_of[path] == method]
            if paths and len(paths) < len(listed):
                combo.addItem(title)
                heading = cast(QStandardItemModel, combo.model()).item(combo.count() - 1)
                heading.setEnabled(False)
            for path in paths:
                combo.addItem(listed[path], path)
        combo.addItem(BROWSE_ENTRY, None)

    def summarize(self) -> str:
        """Summarize the checkpoint in a line, e.g. ``HER2+ breast, 250 genes``."""
        checkpoint = self._session.checkpoint
        if checkpoint is None or self.busy:
            return self.summary_label.text()
        title = self._bundled.get(checkpoint.path) if checkpoint.path is not None else None
        return f"{title or checkpoint.title}, {len(checkpoint.panel)} genes"

    def _find_row(self, path: Path) -> int:
        paths = [self.checkpoint_combo.itemData(i) for i in range(self.checkpoint_combo.count())]
        rows = [i for i, p in enumerate(paths) if p is not None and p.resolve() == path.resolve()]
        return rows[0] if rows else -1

    def _on_choice(self, index: int) -> None:
        path = self.checkpoint_combo.itemData(index)
        if path is None:
            name, _ = QFileDialog.getOpenFileName(
                self, "Open a checkpoint", "", "Checkpoint (*.safetensors);;All files (*)"
            )
            path = Path(name) if name else None
        if path is None:
            self.refresh()
        else:
            self.load(path)

    def show_card(self) -> None:
        """Show the full card in a window."""
        from ....model.checkpoint.checkpoint_card import describe_checkpoint

        if self._session.checkpoint is None:
            return
        dialog = QDialog(self)
        dialog.setWindowTitle("Model card")
        text = QPlainTextEdit(describe_checkpoint(self._session.checkpoint))
        text.setReadOnly(True)
        layout = QVBoxLayout(dialog)
        layout.addWidget(text)
        dialog.resize(640, 560)
        dialog.show()


def summarize_checkpoint(checkpoint: Checkpoint) -> str:
    """Summarize a checkpoint as ``250 genes, PCC 0.44 (ridge 0.42)``, from its card."""
    metrics = checkpoint.card.get("metrics", {})
    method = checkpoint.network.config.method
    text = f"{len(checkpoint.panel)} genes, patch {checkpoint.patch.um:.0f} um"
    if method != DKAN_METHOD:
        text = f"{TITLES[method]}, {text}"
    pcc = metrics.get("pcc_all") if isinstance(metrics, dict) else None
    partial = metrics.get("depth_partial_pcc") if isinstance(metrics, dict) else None
    if isinstance(partial, int | float):
        ceiling = metrics.get("ceiling")
        limit = f" of at most {ceiling:.2f}" if isinstance(ceiling, int | float) else ""
        text += f", depth-partial PCC {partial:.2f}{limit}"
    if isinstance(pcc, int | float):
        ridge = metrics.get("ridge_pcc_all")
        baseline = f" (ridge {ridge:.2f})" if isinstance(ridge, int | float) else ""
        text += f", PCC {pcc:.2f}{baseline} on held-out sections"
    return text


def is_trained_on(checkpoint: Checkpoint, slide: Slide) -> bool:
    """Return whether the card lists this slide as training data."""
    from ....model.checkpoint import checkpoint_card

    return checkpoint_card.is_trained_on(checkpoint.card, slide.fingerprint())


def _display_title(path: Path) -> str:
    return {"her2-breast": "HER2+ breast", "synthetic": "Synthetic tissue"}.get(
        path.stem, path.stem
    )
