"""What to click now, while a section is being registered by hand."""

from __future__ import annotations

from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from ..links import SignalConnections
from .state import QualityController


class LandmarksBox(QWidget):
    """The instruction for the next click, and the ways out; there while landmarks are clicked."""

    def __init__(self, quality: QualityController, connections: SignalConnections) -> None:
        super().__init__()
        self._quality = quality
        self.instruction_label = QLabel()
        self.instruction_label.setWordWrap(True)
        self.done_button, self.undo_button = QPushButton("Done"), QPushButton("Undo")
        self.cancel_button = QPushButton("Cancel")
        line = QHBoxLayout()
        for button in (self.done_button, self.undo_button, self.cancel_button):
            line.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.instruction_label)
        layout.addLayout(line)
        self.done_button.clicked.connect(lambda: quality.end_landmarks(apply=True))
        self.cancel_button.clicked.connect(lambda: quality.end_landmarks())
        self.undo_button.clicked.connect(self._undo_click)
        connections.connect(self.refresh, quality.landmarks_changed)
        self.refresh()

    def _undo_click(self) -> None:
        if self._quality.landmarks is not None:
            self._quality.landmarks.undo()

    def refresh(self) -> None:
        landmarks = self._quality.landmarks
        self.setVisible(landmarks is not None)
        if landmarks is not None:
            self.instruction_label.setText(landmarks.instruction)
            self.done_button.setEnabled(landmarks.can_finish)
            self.undo_button.setEnabled(landmarks.can_undo)
