"""Results in the panel: save, export, a figure, and opening what was saved."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from qtpy.QtWidgets import (
    QFileDialog,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QMenu,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from ...export import figure
from ...export.kinds import KINDS, Kind
from ..actions import answer, tip
from ..links import Links
from ..tones import ALARM, tint
from .gathering import chosen_map, slide_of
from .state import NOTHING, Results

H5AD = ".h5ad"
FIGURES = "Picture (*.png);;Drawing (*.svg);;PDF (*.pdf)"


class ResultsBox(QWidget):
    """Four buttons and a sentence about what became of them."""

    def __init__(self, results: Results, links: Links) -> None:
        super().__init__()
        self._results, self._session = results, results.session
        self._folder = Path()
        self.save, self.figure = QPushButton("Save..."), QPushButton("Figure...")
        self.export, self.open = QPushButton("Export"), QPushButton("Open result...")
        tip(
            self.save,
            "The selected map, else the newest, with all genes and this view, as an .h5ad that "
            "opens here again and in scanpy ({key})",
            "save",
            links,
        )
        tip(self.figure, "What the canvas shows as PNG, SVG or PDF ({key})", "figure", links)
        self.export.setToolTip("The same map for QuPath, tables, SpatialData and OME-Zarr")
        self.open.setToolTip("A saved .h5ad: its slide, map and view come back")
        menu = QMenu(self.export)
        for kind in KINDS:
            if kind.suffix not in (H5AD, *figure.KINDS):
                title = f"{kind.title[:1].upper()}{kind.title[1:]} ({kind.suffix}) ..."
                menu.addAction(title, partial(self._ask, kind))
        self.export.setMenu(menu)
        self.said = QLabel()
        self.said.setWordWrap(True)
        self.locate, self.cancel = QPushButton("Locate slide..."), QPushButton("Cancel")
        self.locate.setToolTip("Where the slide of the reopened result is now")

        buttons = QGridLayout()
        for at, button in enumerate((self.save, self.figure, self.export, self.open)):
            buttons.addWidget(button, at // 2, at % 2)
        below = QHBoxLayout()
        below.addWidget(self.locate)
        below.addWidget(self.cancel)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(buttons)
        layout.addWidget(self.said)
        layout.addLayout(below)

        self.save.clicked.connect(lambda: self._ask_save())
        self.figure.clicked.connect(self._ask_figure)
        self.open.clicked.connect(self._ask_open)
        self.locate.clicked.connect(self._ask_slide)
        self.cancel.clicked.connect(results.cancel)
        session = self._session
        self.forget_keys = answer(session.viewer, save=self._ask_save, figure=self._ask_figure)
        links.join(self.refresh, results.changed, session.overlays_changed, session.overlay_grew)
        self.refresh()

    def refresh(self, event: object = None) -> None:
        results = self._results
        there, busy = chosen_map(self._session) is not None, results.busy
        for button in (self.save, self.export, self.figure):
            button.setEnabled(there and not busy)
        self.open.setEnabled(not busy)
        self.cancel.setVisible(busy)
        self.locate.setVisible(results.slideless is not None and not busy)
        self.said.setText(results.said)
        self.said.setVisible(bool(results.said))
        tint(self.said, ALARM if results.alarming else None)

    # ---- asking ----------------------------------------------------------------------

    def _name(self) -> str:
        """What to call the file: like the slide."""
        overlay = chosen_map(self._session)
        slide = None if overlay is None else slide_of(self._session, overlay)
        name = "result" if slide is None else slide.slide.name
        return f"{name}-predicted"

    def _ask_save(self) -> None:
        self._ask(KINDS[0])

    def _ask(self, kind: Kind) -> None:
        if not self._ready():
            return
        name = str(self._folder / f"{self._name()}{kind.suffix}")
        chosen, _ = QFileDialog.getSaveFileName(
            self, "Save the result", name, f"{kind.title} (*{kind.suffix})"
        )
        if chosen and (path := self._ended(chosen, kind.suffix)):
            self._results.write(path)

    def _ask_figure(self) -> None:
        if not self._ready():
            return
        name = str(self._folder / f"{self._name()}-{self._session.gene}.png")
        chosen, which = QFileDialog.getSaveFileName(self, "Save the figure", name, FIGURES)
        wanted = which.rpartition("*")[2].rstrip(")") or figure.KINDS[0]
        known = Path(chosen).suffix.lower() in figure.KINDS
        if chosen and (path := self._ended(chosen, "" if known else wanted)):
            self._results.draw(path)

    def _ask_open(self) -> None:
        chosen, _ = QFileDialog.getOpenFileName(
            self, "Open a result", str(self._folder), f"Saved result (*{H5AD})"
        )
        if chosen and (path := self._ended(chosen, "")):
            self._results.open(path)

    def _ask_slide(self) -> None:
        waiting = self._results.slideless
        if waiting is None:
            return
        name = waiting.saved.slide.name
        if waiting.saved.slide.path.rstrip("\\/").endswith(".zarr"):  # a folder
            chosen = QFileDialog.getExistingDirectory(self, f"Where is {name}?", str(self._folder))
        else:
            chosen, _ = QFileDialog.getOpenFileName(self, f"Where is {name}?", str(self._folder))
        if chosen:
            self._results.locate(Path(chosen))

    def _ready(self) -> bool:
        """A key may be pressed at any time; a button only says so by being grey."""
        if chosen_map(self._session) is None:
            self._results.say(NOTHING, alarming=True)
            return False
        return not self._results.busy

    def _ended(self, chosen: str, suffix: str) -> Path | None:
        """With the ending that its kind needs; its folder is the next one to be offered.

        None for a file that is there already and that the dialog, which was given the name
        without its ending, has not asked about.
        """
        path = Path(chosen if chosen.lower().endswith(suffix) else f"{chosen}{suffix}")
        self._folder = path.parent
        if path != Path(chosen) and path.exists():
            said = f"{path.name} is there already; choose it with its ending to replace it."
            self._results.say(said, alarming=True)
            return None
        return path
