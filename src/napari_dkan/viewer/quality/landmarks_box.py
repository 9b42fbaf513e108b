"""What to click now, while a section is being registered by hand."""

from __future__ import annotations

from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from ..links import Links
from .state import Quality


class LandmarksBox(QWidget):
    """The instruction for the next click, and the ways out; there while landmarks are clicked."""

    def __init__(self, quality: Quality, links: Links) -> None:
        super().__init__()
        self._quality = quality
        self.instruction = QLabel()
        self.instruction.setWordWrap(True)
        self.done, self.undo = QPushButton("Done"), QPushButton("Undo")
        self.cancel = QPushButton("Cancel")
        line = QHBoxLayout()
        for button in (self.done, self.undo, self.cancel):
            line.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.instruction)
        layout.addLayout(line)
        self.done.clicked.connect(lambda: quality.end_landmarks(keep=True))
        self.cancel.clicked.connect(lambda: quality.end_landmarks())
        self.undo.clicked.connect(self._undo)
        links.join(self.refresh, quality.landmarks_changed)
        self.refresh()

    def _undo(self) -> None:
        if self._quality.landmarks is not None:
            self._quality.landmarks.undo()

    def refresh(self) -> None:
        landmarks = self._quality.landmarks
        self.setVisible(landmarks is not None)
        if landmarks is not None:
            self.instruction.setText(landmarks.instruction)
            self.done.setEnabled(landmarks.can_finish)
            self.undo.setEnabled(landmarks.can_undo)
