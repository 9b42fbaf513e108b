"""The tile encoder's weights, where the checkpoint does not bring them along.

Nothing is downloaded before its licence, access and size were read and the button was pressed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from .lane import Failure, Lane
from .links import Links
from .session import Session

if TYPE_CHECKING:
    from ..model.encoders.download import Fetched
    from ..model.encoders.offer import Offer
    from ..model.encoders.protocol import EncoderSpec

STEPS = 1000  # of the progress bar; bytes do not fit into its numbers
STOPPED = "Stopped. Download goes on where it stopped."


class EncoderBox(QWidget):
    """States what weights are missing, fetches them, or takes a file; hidden where none are."""

    def __init__(self, session: Session, links: Links) -> None:
        super().__init__()
        self._session = session
        self._lane = Lane("encoder")
        self._offer: Offer | None = None
        self._checked: dict[str, Path] = {}  # local files by the encoder they belong to
        self._asked: EncoderSpec | None = None  # whose weights were looked for last
        self._began = (0.0, 0)  # when and where this part of the download began
        self.about = QLabel()
        self.about.setWordWrap(True)
        self.download = QPushButton("Download")
        self.browse = QPushButton("Local file...")
        self.browse.setToolTip("Weights that are on this computer: .safetensors, .bin, .pth.")
        self.cancel = QPushButton("Cancel")
        self.progress = QProgressBar()
        self.progress.setRange(0, STEPS)
        self.rate = QLabel()

        buttons = QHBoxLayout()
        for button in (self.download, self.browse, self.cancel):
            buttons.addWidget(button)
        buttons.addStretch(1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (self.about, self.progress, self.rate):
            layout.addWidget(widget)
        layout.addLayout(buttons)

        self.download.clicked.connect(self.fetch)
        self.browse.clicked.connect(self._browse)
        self.cancel.clicked.connect(self.stop)
        links.join(self.refresh, session.checkpoint_changed, session.settings_changed)
        self._show(working=False)
        self.refresh()

    @property
    def busy(self) -> bool:
        return self._lane.busy

    def close_lane(self) -> None:
        self._lane.cancel()

    def refresh(self) -> None:
        """Look, off the GUI thread, whether the weights of this checkpoint are here."""
        spec = self._wanted()
        if spec is None or spec != self._asked:
            self._lane.cancel()
            self._offer, self._asked = None, spec
            self._show(working=False)
            if spec is not None:
                self._look(spec)

    def _wanted(self) -> EncoderSpec | None:
        """The encoder whose weights have to be found; a file checked for another is put away."""
        from ..model.encoders import EXTERNAL, STAIN

        checkpoint, given = self._session.checkpoint, self._session.settings.encoder_weights
        if checkpoint is None:
            return None
        spec = checkpoint.encoder
        if given in self._checked.values() and given != self._checked.get(spec.name):
            self._session.change(encoder_weights=self._checked.get(spec.name))
            given = self._session.settings.encoder_weights
        inside = checkpoint.encoder_tensors is not None or spec.name in (STAIN, EXTERNAL)
        return None if inside or given is not None else spec

    def _look(self, spec: EncoderSpec) -> None:
        def job() -> Iterator[Offer]:
            from ..model.encoders.offer import offer_of

            yield offer_of(spec)

        def found(offer: Offer) -> None:
            self._offer = None if offer.here else offer
            self.about.setText(
                f"The model's tile encoder is not on this computer. {offer.sentence}"
            )

        self._lane.start(job, found, self._end)

    def fetch(self) -> None:
        """Download; it goes on where an earlier one stopped."""
        if self._offer is None or self._asked is None:
            return
        name, revision = self._offer.name, self._asked.revision
        self._began = (0.0, 0)

        def job() -> Iterator[Fetched]:
            from ..model.encoders.download import fetch

            yield from fetch(name, revision)

        self.rate.setText("Asking the hub ...")
        self._lane.start(job, self._grew, self._fetched)
        self._show(working=True)

    def _grew(self, so_far: Fetched) -> None:
        now, words = time.monotonic(), f"{so_far.done / 1e6:,.0f} MB"
        if not self._began[0]:
            self._began = (now, so_far.done)
        if so_far.total:
            words += f" of {so_far.total / 1e6:,.0f} MB"
            self.progress.setValue(int(STEPS * so_far.done / so_far.total))
        since, seconds = so_far.done - self._began[1], now - self._began[0]
        if since and seconds > 1:
            words += f", {since / seconds / 1e6:.1f} MB/s"
            if so_far.total:
                words += f", {(so_far.total - so_far.done) * seconds / since:,.0f} s left"
        self.rate.setText(words)

    def _fetched(self, failure: Failure | None) -> None:
        if failure is None:
            self._offer = None
        self._end(failure)
        if failure is None:
            self._start_over()

    def take(self, path: Path) -> None:
        """Use a local file once it was checked to be this encoder's."""
        spec = self._asked
        if spec is None:
            return

        def job() -> Iterator[None]:
            from ..model.encoders import build_encoder

            yield None
            build_encoder(spec, None, path)

        def end(failure: Failure | None) -> None:
            self._end(failure)
            if failure is None:
                self._checked[spec.name] = path
                self._session.change(encoder_weights=path)
                self._start_over()

        self.rate.setText(f"Checking {path.name} ...")
        self._lane.start(job, lambda item: None, end)
        self._show(working=True)

    def _browse(self) -> None:
        name, _ = QFileDialog.getOpenFileName(
            self, "Weights of the tile encoder", "", "Weights (*.safetensors *.bin *.pth *.pt)"
        )
        if name:
            self.take(Path(name))

    def stop(self) -> None:
        """Cancel; what has come stays for the next time."""
        self._lane.cancel()
        self._show(working=False)
        self.rate.setText(STOPPED if self.progress.value() else "")
        self.rate.setVisible(bool(self.rate.text()))

    def _end(self, failure: Failure | None) -> None:
        self._show(working=False)
        if failure is not None:
            self.about.setText(failure.sentence)
            self.setVisible(True)

    def _start_over(self) -> None:
        """The checkpoint of now with its encoder: clicks and maps work from here on."""
        checkpoint = self._session.checkpoint
        if checkpoint is not None:
            self._session.say("")
            self._session.use_checkpoint(checkpoint)

    def _show(self, working: bool) -> None:
        self.setVisible(working or self._offer is not None)
        for widget in (self.progress, self.rate, self.cancel):
            widget.setVisible(working)
        for widget in (self.download, self.browse):
            widget.setVisible(not working)
        if self._offer is not None:
            self.download.setText(f"Download {self._offer.size}")
            self.download.setEnabled(bool(self._offer.repository))
        if working:
            self.progress.setValue(0)
