"""Two checkpoints on one slide: their maps, the difference, and which the measured data prefers."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from ...errors import DkanError
from ...samples.bundled import bundled_checkpoints
from ..combo import narrow
from ..lane import Failure, Lane
from ..links import Links
from ..memory import recent_checkpoints
from ..session import Session
from ..tones import WARNING, tint
from .layers import DIVERGING
from .rival_job import Match, Step, matching
from .rival_rows import rival_rows
from .state import Quality
from .table import FiguresTable
from .tile_maps import slide_of, tile_map
from .value_maps import Places, ValueMap, ValueMaps, centred_limits, shared_limits

BROWSE = "Browse..."


class RivalsBox(QWidget):
    """The session's checkpoint is the first; the second is chosen here."""

    def __init__(self, session: Session, quality: Quality, links: Links, maps: ValueMaps) -> None:
        super().__init__()
        self._session, self._quality = session, quality
        self._lane = Lane("second checkpoint")
        self._maps = maps
        self.match: Match | None = None
        self._places: Places | None = None
        self.choice = QComboBox()
        narrow(self.choice)
        self.choice.setToolTip("The second checkpoint; the first is that of the Predict panel.")
        self.start, self.cancel = QPushButton("Compare"), QPushButton("Cancel")
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setMaximumHeight(8)
        self.said, self.trained = QLabel(), QLabel()
        tint(self.trained, WARNING)
        for label in (self.said, self.trained):
            label.setWordWrap(True)
        self.table = FiguresTable()
        self.table.setFixedHeight(9 * (self.table.fontMetrics().height() + 6))
        line = QHBoxLayout()
        line.addWidget(self.choice, 1)
        line.addWidget(self.start)
        line.addWidget(self.cancel)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(line)
        for widget in (self.bar, self.said, self.trained, self.table):
            layout.addWidget(widget)
        self.choice.activated.connect(self._chosen)
        self.start.clicked.connect(self.compare)
        self.cancel.clicked.connect(self._cancelled)
        self.table.picked.connect(self._picked)
        self.table.clicked.connect(lambda index: self.show_maps())
        links.join(self.list_checkpoints, session.checkpoint_changed)
        links.join(self.forget, session.checkpoint_changed, quality.comparison_changed)
        links.join(self._layers_gone, session.slides_changed)
        links.join(self.refresh, session.overlays_changed)
        links.join(self._gene, session.gene_changed, session.settings_changed)
        self.list_checkpoints()
        self.forget()

    def close_lane(self) -> None:
        self._lane.cancel()

    @property
    def busy(self) -> bool:
        return self._lane.busy

    # ---- choosing --------------------------------------------------------------------

    def list_checkpoints(self) -> None:
        """All but the first one."""
        checkpoint = self._session.checkpoint
        first = None if checkpoint is None else checkpoint.path
        before = self.choice.currentData()
        self.choice.clear()
        for path in dict.fromkeys([*bundled_checkpoints(), *recent_checkpoints()]):
            if first is None or path.resolve() != first.resolve():
                self.choice.addItem(path.stem, path)
        self.choice.addItem(BROWSE, None)
        self.choice.setCurrentIndex(max(0, self._row(before)))

    def _row(self, path: Path | None) -> int:
        """Of a checkpoint in the list, -1 where it is not there."""
        paths = [self.choice.itemData(i) for i in range(self.choice.count())]
        return paths.index(path) if path is not None and path in paths else -1

    def _chosen(self, index: int) -> None:
        if self.choice.itemData(index) is None:
            name, _ = QFileDialog.getOpenFileName(
                self, "Second checkpoint", "", "DKAN checkpoint (*.safetensors);;All files (*)"
            )
            if name:
                self.take(Path(name))
        self.refresh()

    def take(self, path: Path) -> None:
        """Choose a checkpoint file."""
        if self._row(path) < 0:
            self.choice.insertItem(0, path.stem, path)
        self.choice.setCurrentIndex(self._row(path))
        self.refresh()

    # ---- comparing -------------------------------------------------------------------

    def compare(self) -> None:
        """Predict with the second checkpoint at the measured spots and over the tile map."""
        session, slide, path = self._session, slide_of(self._quality), self.choice.currentData()
        comparison, tiles = self._quality.comparison, tile_map(self._quality)
        checkpoint = session.checkpoint
        if slide is None or checkpoint is None or path is None:
            return

        self._lane.start(
            lambda: matching(session, slide, checkpoint, path, comparison, tiles),
            self._receive,
            self._end,
        )
        self.said.setText("")
        self.refresh()

    def _receive(self, item: Step | Match) -> None:
        if isinstance(item, Step):
            self.bar.setRange(0, item.total)
            self.bar.setValue(item.done)
            self.said.setText(item.what)
            return
        self.match = item
        self.table.show_rows(rival_rows(item.figures), sort_by=1)
        self.said.setText(item.figures.sentence())
        self.trained.setText(_trained(item))
        self._places = Places(item.slide, item.target.spots, item.target.grid)
        self.show_maps()

    def _end(self, failure: Failure | None) -> None:
        if failure is not None:
            self.said.setText(failure.sentence)
        self.refresh()

    def _cancelled(self) -> None:
        self._lane.cancel()
        self.said.setText("Cancelled.")
        self.refresh()

    def forget(self) -> None:
        """Another checkpoint or another section: what was matched holds no longer."""
        self._lane.cancel()
        if self._places is not None and self._maps.places is self._places:
            self._maps.remove()
        self.match = self._places = None
        self.said.setText("")
        self.refresh()

    def _layers_gone(self) -> None:
        if self.match is not None and self.match.slide not in self._session.slides:
            self.forget()

    def refresh(self) -> None:
        busy = self.busy
        anywhere = self._quality.comparison is not None or tile_map(self._quality)
        ready = bool(anywhere) and self.choice.currentData() is not None
        self.start.setEnabled(ready and not busy)
        self.start.setVisible(not busy)
        self.cancel.setVisible(busy)
        self.bar.setVisible(busy)
        self.table.setVisible(self.match is not None)
        self.trained.setVisible(self.match is not None and bool(self.trained.text()))
        if not anywhere and not busy:
            self.said.setText("Load measured spots, or predict a region or the whole tissue first.")

    # ---- showing ---------------------------------------------------------------------

    def _picked(self, symbol: str) -> None:
        try:
            self._session.set_gene(symbol)
        except DkanError as error:
            self.said.setText(str(error))

    def _gene(self) -> None:
        """Another gene: other maps, if it is these that are shown."""
        self.table.choose(self._session.gene)
        if self._places is not None and self._maps.places is self._places:
            self.show_maps()

    def show_maps(self) -> None:
        """The chosen gene by the first, by the second, and second minus first."""
        match, places, gene = self.match, self._places, self._session.gene
        if match is None or places is None:
            return
        self.table.choose(gene)
        if gene not in match.on_map.panel:
            self._maps.remove()
            return
        maps = maps_of(match, gene or "", self._session.settings.colormap)
        self._maps.show(places, maps, f"{gene}\n{match.scale}".replace(", ", ",\n"))


def maps_of(match: Match, gene: str, colormap: str) -> list[ValueMap]:
    """Measured where it is, both predicted on one scale, and their difference.

    On different label scales each has limits of its own, and there is no difference.
    """
    rivals, comparison = match.on_map, match.comparison
    column = rivals.panel.row(gene)
    both = zip(rivals.titles, (rivals.a, rivals.b), strict=True)
    values = {f"{gene} predicted, {title}": v[:, column] for title, v in both}
    if comparison is not None and match.target.grid is None and gene in comparison.panel:
        measured = comparison.measured[rivals.rows, comparison.panel.row(gene)]
        values = {f"{gene} measured": measured, **values}
    if not rivals.same_scale:
        return [ValueMap(n, v, shared_limits(v), colormap) for n, v in values.items()]
    limits = shared_limits(*values.values())
    maps = [ValueMap(n, v, limits, colormap) for n, v in values.items()]
    difference = rivals.difference[:, column]
    reach = centred_limits(difference)
    return [*maps, ValueMap(f"{gene} second minus first", difference, reach, DIVERGING)]


def _trained(match: Match) -> str:
    """Figures on a slide that a checkpoint was trained on say nothing for it."""
    if not match.trained or match.comparison is None:
        return ""
    titles = " and ".join(match.trained)
    were = "were" if len(match.trained) > 1 else "was"
    return f"{titles} {were} trained on this slide, so what is measured here is no fair judge."
