"""DKAN: fine-tune. Sections, settings, run and result, from top to bottom."""

from __future__ import annotations

from collections.abc import Callable

from napari.viewer import Viewer
from qtpy.QtCore import Qt
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

from ...errors import DkanError
from ..actions import answer
from ..column import Column, heading_of
from ..help import show_in_front
from ..links import Links, once
from ..quality.beside import open_predict_beside
from ..quality.state import quality_of
from ..session import Session, session_of
from ..tones import ALARM, tint
from .live_map import LiveMap
from .preview import Preview
from .result_box import ResultBox
from .run_box import RunBox
from .sections_box import SectionsBox
from .settings_box import SettingsBox
from .tuning import Tuning, Wanted


class FineTuneWidget(QWidget):
    """One per viewer; closing it ends what it runs."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self.session: Session = session_of(napari_viewer)
        session, links = self.session, Links()
        self.quality = quality_of(session)
        self.tuning = Tuning(session, self.quality, links)
        self.model = QLabel()
        self.sections = SectionsBox(self.quality, links)
        self.settings = SettingsBox()
        self.preview = Preview(session, self.sections, self.settings, links)
        self.live_map = LiveMap(session, self.tuning, links)
        self.run = RunBox(self.tuning, self.start, links)
        self.message, self.notice = QLabel(), QLabel()
        self.result = ResultBox(session, self.tuning, links)
        for label in (self.message, self.notice):
            tint(label, ALARM)
        for label in (self.model, self.message, self.notice):
            label.setWordWrap(True)
            label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._build()
        self.sections.ticked_changed.connect(self._ticked)
        links.join(self._show_model, session.checkpoint_changed)
        links.join(self._say, self.tuning.said)
        links.join(self._notice, session.message_changed)
        links.join(self._follow, self.tuning.changed)
        self.shut_down = once(links.cut, self._answer(), self.tuning.close, self.preview.shut)
        self.destroyed.connect(self.shut_down)  # a dock that is deleted gets no closeEvent
        self._show_model()
        self._ticked()
        self._say("", False)
        self._notice()
        open_predict_beside(self, napari_viewer)

    def _build(self) -> None:
        content = QWidget()
        column = QVBoxLayout(content)
        column.setSpacing(6)
        boxes: dict[str, tuple[QWidget, ...]] = {
            "Model": (self.model,),
            "Learn from": (self.sections, self.notice),
            "How": (self.settings, self.preview, self.live_map, self.settings.advanced),
            "": (self.run, self.message, self.result),
        }
        for title, widgets in boxes.items():
            if title:
                column.addWidget(heading_of(title, "finetune" if title == "Model" else ""))
            for widget in widgets:
                column.addWidget(widget)
        column.addStretch(1)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(Column(content))

    def start(self) -> None:
        """Fine-tune as the boxes say; what is missing is said below the button."""
        try:
            wanted = Wanted(
                self.sections.ticked(),
                self.sections.others(),
                self.settings.settings(),
                self.settings.new_genes,
            )
            self.tuning.start(wanted)
        except DkanError as error:
            self._say(str(error), True)

    def _answer(self) -> Callable[[], None]:
        return answer(
            self.session.viewer,
            finetune=self.run.start.click,
            help=lambda: show_in_front("finetune", self),
        )

    def _notice(self) -> None:
        """What reading a section, or anything else of the session, stumbled over."""
        session = self.session
        self.notice.setText(session.message if session.alarming else "")
        self.notice.setVisible(bool(self.notice.text()))

    def _show_model(self) -> None:
        checkpoint = self.session.checkpoint
        title = "being loaded ..." if checkpoint is None else checkpoint.title
        self.model.setText(title)

    def _ticked(self) -> None:
        self.settings.set_sections(len(self.sections.ticked()))

    def _follow(self) -> None:
        """What a run depends on stays as it is until it ends."""
        for box in (self.sections, self.settings, self.settings.advanced):
            box.setEnabled(not self.tuning.busy)

    def _say(self, text: str, alarming: bool) -> None:
        self.message.setText(text)
        self.message.setVisible(bool(text))
        tint(self.message, ALARM if alarming else None)

    def closeEvent(self, event: QCloseEvent) -> None:
        self.shut_down()
        super().closeEvent(event)
