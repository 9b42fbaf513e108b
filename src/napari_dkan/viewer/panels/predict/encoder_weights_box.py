"""Download or selection of tile encoder weights that the checkpoint does not contain."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from ...session.viewer_session import ViewerSession
from ...widgets.paced_progress_bar import PacedProgressBar
from ...widgets.signal_connections import SignalConnections
from ...worker import JobFailure, JobRunner

if TYPE_CHECKING:
    from ....model.encoders.encoder_catalog import EncoderWeightsInfo
    from ....model.encoders.encoder_spec import EncoderSpec
    from ....model.encoders.weights_download import DownloadProgress


PROGRESS_STEPS = 1000  # bytes would exceed the integers of a progress bar
STOPPED_TEXT = "Stopped. Download goes on where it stopped."


class EncoderWeightsBox(QWidget):
    """Offers to download missing encoder weights or to choose a file; otherwise hidden."""

    def __init__(self, session: ViewerSession, connections: SignalConnections) -> None:
        super().__init__()
        self._session = session
        self._runner = JobRunner("encoder")
        self._offer: EncoderWeightsInfo | None = None
        self._local_files: dict[str, Path] = {}  # by encoder name
        self._requested_spec: EncoderSpec | None = None  # of the last availability check
        self._download_start = (0.0, 0)  # time and bytes at the start
        self.status_label = QLabel()
        self.status_label.setWordWrap(True)
        self.download_button = QPushButton("Download")
        self.browse_button = QPushButton("Local file...")
        self.browse_button.setToolTip(
            "Weights that are on this computer: .safetensors, .bin, .pth."
        )
        self.cancel_button = QPushButton("Cancel")
        self.progress_bar = PacedProgressBar()
        self.progress_bar.setRange(0, PROGRESS_STEPS)
        self._has_part = False  # of the weights, to go on from
        self.rate_label = QLabel()

        buttons = QHBoxLayout()
        for button in (self.download_button, self.browse_button, self.cancel_button):
            buttons.addWidget(button)
        buttons.addStretch(1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (self.status_label, self.progress_bar, self.rate_label):
            layout.addWidget(widget)
        layout.addLayout(buttons)

        self.download_button.clicked.connect(self.start_download)
        self.browse_button.clicked.connect(self._browse)
        self.cancel_button.clicked.connect(self.cancel_job)
        connections.connect(self.refresh, session.checkpoint_changed, session.settings_changed)
        self._update_visibility(working=False)
        self.refresh()

    @property
    def busy(self) -> bool:
        """Whether weights are being looked up, downloaded or checked."""
        return self._runner.busy

    def stop_jobs(self) -> None:
        """Cancel the running job."""
        self._runner.cancel()

    def wait(self) -> bool:
        """Wait for the threads of ended jobs; return False after a timeout."""
        return self._runner.wait()

    def refresh(self) -> None:
        """Check in a thread whether the weights of the checkpoint are available."""
        spec = self._missing_encoder()
        if spec is None or spec != self._requested_spec:
            self._runner.cancel()
            self._offer, self._requested_spec = None, spec
            self._update_visibility(working=False)
            if spec is not None:
                self._check_availability(spec)

    def _missing_encoder(self) -> EncoderSpec | None:
        """The encoder whose weights are missing; a file of another encoder is deselected."""
        from ....model.encoders.encoder_spec import EXTERNAL_ENCODER, STAIN_ENCODER

        checkpoint, weights = self._session.checkpoint, self._session.settings.encoder_weights
        if checkpoint is None:
            return None
        spec = checkpoint.encoder
        if weights in self._local_files.values() and weights != self._local_files.get(spec.name):
            self._session.change_settings(encoder_weights=self._local_files.get(spec.name))
            weights = self._session.settings.encoder_weights
        inside = checkpoint.encoder_tensors is not None or spec.name in (
            STAIN_ENCODER,
            EXTERNAL_ENCODER,
        )
        return None if inside or weights is not None else spec

    def _check_availability(self, spec: EncoderSpec) -> None:
        def job() -> Iterator[EncoderWeightsInfo]:
            from ....model.encoders.weights_download import get_weights_info_for_spec

            yield get_weights_info_for_spec(spec)

        def on_checked(offer: EncoderWeightsInfo) -> None:
            self._offer = None if offer.cached_file else offer
            self.status_label.setText(
                f"The model's tile encoder is not on this computer. {offer.summary}"
            )

        self._runner.start(job, on_checked, self._on_job_end)

    def start_download(self) -> None:
        """Start or resume the download."""
        if self._offer is None or self._requested_spec is None:
            return
        name, revision = self._offer.name, self._requested_spec.revision
        self._download_start = (0.0, 0)

        def job() -> Iterator[DownloadProgress]:
            from ....model.encoders.weights_download import download_weights

            yield from download_weights(name, revision)

        self.rate_label.setText("Asking the hub ...")
        self._runner.start(job, self._on_progress, self._on_download_end)
        self._update_visibility(working=True)

    def _on_progress(self, progress: DownloadProgress) -> None:
        self._has_part = progress.done > 0
        now, text = time.monotonic(), f"{progress.done / 1e6:,.0f} MB"
        if not self._download_start[0]:
            self._download_start = (now, progress.done)
        if progress.total:
            text += f" of {progress.total / 1e6:,.0f} MB"
            done = int(PROGRESS_STEPS * progress.done / progress.total)
            if not self.progress_bar.show_progress(done, PROGRESS_STEPS):
                return
        since, seconds = progress.done - self._download_start[1], now - self._download_start[0]
        if since and seconds > 1:
            text += f", {since / seconds / 1e6:.1f} MB/s"
            if progress.total:
                text += f", {(progress.total - progress.done) * seconds / since:,.0f} s left"
        self.rate_label.setText(text)

    def _on_download_end(self, failure: JobFailure | None) -> None:
        if failure is None:
            self._offer = None
        self._on_job_end(failure)
        if failure is None:
            self._reapply_checkpoint()

    def use_local_file(self, path: Path) -> None:
        """Use a local file after a check that it contains weights of this encoder."""
        spec = self._requested_spec
        if spec is None:
            return

        def job() -> Iterator[None]:
            from ....model.encoders import build_encoder

            yield None
            build_encoder(spec, None, path)

        def on_end(failure: JobFailure | None) -> None:
            self._on_job_end(failure)
            if failure is None:
                self._local_files[spec.name] = path
                self._session.change_settings(encoder_weights=path)
                self._reapply_checkpoint()

        self.rate_label.setText(f"Checking {path.name} ...")
        self._runner.start(job, lambda item: None, on_end)
        self._update_visibility(working=True)

    def _browse(self) -> None:
        name, _ = QFileDialog.getOpenFileName(
            self, "Weights of the tile encoder", "", "Weights (*.safetensors *.bin *.pth *.pt)"
        )
        if name:
            self.use_local_file(Path(name))

    def cancel_job(self) -> None:
        """Cancel; downloaded data is kept."""
        self._runner.cancel()
        self._update_visibility(working=False)
        self.rate_label.setText(STOPPED_TEXT if self._has_part else "")
        self.rate_label.setVisible(bool(self.rate_label.text()))

    def _on_job_end(self, failure: JobFailure | None) -> None:
        self._update_visibility(working=False)
        if failure is not None:
            self.status_label.setText(failure.message)
            self.setVisible(True)

    def _reapply_checkpoint(self) -> None:
        """Set the checkpoint again, now that its encoder is available."""
        checkpoint = self._session.checkpoint
        if checkpoint is not None:
            self._session.message.clear()
            self._session.set_checkpoint(checkpoint)

    def _update_visibility(self, working: bool) -> None:
        self.setVisible(working or self._offer is not None)
        for widget in (self.progress_bar, self.rate_label, self.cancel_button):
            widget.setVisible(working)
        for widget in (self.download_button, self.browse_button):
            widget.setVisible(not working)
        if self._offer is not None:
            self.download_button.setText(f"Download {self._offer.size_text}")
            self.download_button.setEnabled(bool(self._offer.repository))
        if working:
            self.progress_bar.setValue(0)
            self._has_part = False
