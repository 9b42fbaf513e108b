"""Genes with a map like that of the shown gene, and tiles like the clicked one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtWidgets import QLabel, QPushButton, QVBoxLayout, QWidget

from ....errors import DkanError, SpotsError
from ...layers.slide_tiles import TileValues, find_slide_tiles
from ...session.viewer_session import ViewerSession
from ...tools.similar_tiles import SimilarTiles
from ...widgets.fold_section import reveal_answer
from ...widgets.metrics_table import MetricsTable, MetricsTableData, make_metric_column
from ...widgets.qt_utils import make_row, make_text_label
from ...widgets.signal_connections import SignalConnections
from ...worker import JobFailure, JobRunner

if TYPE_CHECKING:
    from ....quality.find_similar import GeneSimilarity


MAX_ROWS_SHOWN = 8  # without scrolling
BEYOND_MEAN = (
    "Correlation after the mean of all genes is regressed out of both maps: most genes rise "
    "together where cells are dense, and this is what two maps share beyond that"
)


class FindBox(QWidget):
    """Two searches over the map of the current slide, with one list each."""

    def __init__(
        self, session: ViewerSession, connections: SignalConnections, similar: SimilarTiles
    ) -> None:
        super().__init__()
        self._session, self._similar = session, similar
        self._found_for: tuple[str, object] | None = None  # gene and slide of the list
        self._tile_names: tuple[str, ...] = ()
        self._reveal_tiles: Callable[[], None] = lambda: None
        self._runner = JobRunner("similar genes")
        self.genes_button = QPushButton("Genes like this one")
        self.tiles_button = QPushButton("Tiles like this spot")
        self.genes_button.setToolTip(
            "Genes whose map over the predicted tiles of this slide correlates with that of the "
            "shown gene. Neighbouring tiles are alike, so there is no test."
        )
        self.tiles_button.setCheckable(True)
        self.tiles_button.setToolTip(
            "How much each predicted tile is like the clicked one: the cosine of what the model "
            "sees in them and around them (fused tokens), 1 for the same. Neighbours share their "
            "surroundings; see how far away a tile is. Press again for the gene's map."
        )
        self.note_label: QLabel = make_text_label()
        self.gene_table, self.tile_table = MetricsTable("Gene"), MetricsTable("Tile at (um)")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(make_row((self.genes_button, 1), (self.tiles_button, 1)))
        layout.addWidget(self.note_label)
        for table in (self.gene_table, self.tile_table):
            table.setFixedHeight((MAX_ROWS_SHOWN + 1) * (table.fontMetrics().height() + 6))
            table.hide()
            layout.addWidget(table)
        self.genes_button.clicked.connect(self.find_genes)
        self.tiles_button.clicked.connect(self._on_tiles_clicked)
        self.gene_table.symbol_selected.connect(self._show_gene)
        self.tile_table.symbol_selected.connect(self._go_to_tile)
        connections.connect(self._on_tiles_changed, similar.changed)
        connections.connect(self.refresh, session.gene_changed, session.slide_changed)
        connections.on_disconnect(self._runner.close)
        self._say("")
        self.refresh()

    @property
    def busy(self) -> bool:
        return self._runner.busy

    def find_genes(self) -> None:
        """Rank the genes of the map by their correlation with the shown one."""
        session, gene = self._session, self._session.gene
        try:
            slide = session.require_slide()
            tiles = find_slide_tiles(session, slide)
            if tiles is None or gene is None or not tiles.has_gene(gene):
                raise SpotsError(
                    f"This slide has no map of {gene or 'a gene'} yet; predict a region first."
                )
        except DkanError as error:
            session.message.show(str(error), warning=True)
            return
        if self._similar.active:
            self._similar.set_active(False)
        self._say("Comparing maps ...")

        def job() -> Iterator[tuple[TileValues, GeneSimilarity]]:
            from ....quality.find_similar import correlate_with_gene

            every, shown = tiles.read(), tiles.read([gene])
            yield every, correlate_with_gene(every.values, shown.values[:, 0])

        def receive(found: tuple[TileValues, GeneSimilarity]) -> None:
            self._found_for = gene, slide
            self._list_genes(gene, *found)
            poor = found[0].unreliable
            note = f" ({int(poor.sum()):,} unreliable)" if poor is not None and poor.any() else ""
            self._say(
                f"Maps like {gene}: {found[1].n_tiles:,} predicted tiles{note} of "
                f"{slide.layer.name}."
            )

        reveal_list = reveal_answer(self)

        def end(failure: JobFailure | None) -> None:
            self._on_end(failure)
            reveal_list()

        self._runner.start(job, receive, end)

    def _list_genes(self, gene: str, values: TileValues, found: GeneSimilarity) -> None:
        rows = np.flatnonzero(np.array(values.panel.symbols) != gene)
        symbols = tuple(values.panel.symbols[row] for row in rows)
        n_tiles = np.full(len(rows), found.n_tiles, np.float64)
        columns = (
            make_metric_column("r", "Pearson correlation of the two maps", found.r[rows]),
            make_metric_column("r beyond mean", BEYOND_MEAN, found.r_beyond_mean[rows]),
            make_metric_column("n", "Tiles of this slide's map", n_tiles, ".0f"),
        )
        notes = tuple(values.panel.genes[row].name for row in rows)
        self.gene_table.set_table_data(MetricsTableData(symbols, columns, notes))
        self.gene_table.show()
        self.tile_table.hide()

    def _show_gene(self, symbol: str) -> None:
        try:
            self._session.set_gene(symbol)
        except DkanError as error:
            self._session.message.show(str(error), warning=True)

    def _on_tiles_clicked(self, checked: bool) -> None:
        self._runner.cancel()
        self._similar.set_active(checked)
        if checked:
            self._reveal_tiles = reveal_answer(self)

    def _on_tiles_changed(self) -> None:
        """List the tiles that were found."""
        result = self._similar.result
        self.tiles_button.setChecked(self._similar.active)
        self.tile_table.setVisible(result is not None)
        if result is None:
            if not self.gene_table.isVisibleTo(self):
                self._say("")
            return
        self._found_for = None
        self.gene_table.hide()
        centres = result.grid.centres[result.listed] * result.slide.mpp
        poor = None if result.unreliable is None else result.unreliable[result.listed]
        columns = (
            make_metric_column(
                "cosine",
                "Similarity to the clicked spot; tinted: unreliable tiles",
                result.cosines[result.listed],
                warning_mask=poor,
                warning="The prediction of this tile is unreliable",
            ),
            make_metric_column("um away", "From the spot", result.distances_um(), ".0f"),
        )
        names = self._tile_names = tuple(f"{x:,.0f}, {y:,.0f}" for x, y in centres)
        self.tile_table.set_table_data(MetricsTableData(names, columns))
        self._say(
            f"The {len(names)} tiles most like this spot of {len(result.grid):,} predicted ones of "
            f"{result.slide.layer.name}, outlined; without its own."
        )
        self._reveal_tiles()
        self._reveal_tiles = lambda: None  # lists of other spots later on are not asked for here

    def _go_to_tile(self, name: str) -> None:
        if name in self._tile_names:
            self._similar.go_to(self._tile_names.index(name))

    def _on_end(self, failure: JobFailure | None) -> None:
        if failure is not None:
            self._say("")
            self._session.message.show(failure.message, warning=True)

    def _say(self, text: str) -> None:
        self.note_label.setText(text)
        self.note_label.setVisible(bool(text))

    def refresh(self) -> None:
        """Follow gene and slide; a list of another slide is dropped."""
        session = self._session
        self.setEnabled(session.gene_panel is not None)
        if self._found_for is not None and self._found_for[1] is not session.slide:
            self._found_for = None
            self.gene_table.hide()
            self._say("")
        self.gene_table.select_symbol(session.gene)
