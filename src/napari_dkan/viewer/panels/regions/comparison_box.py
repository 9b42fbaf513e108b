"""Box to compare a region or class with another one, or with the rest of the tissue."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from napari.layers import Layer, Points
from numpy.typing import NDArray
from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QComboBox, QFileDialog, QLabel, QPushButton, QWidget
from superqt.utils import signals_blocked

from ....atomic_write import atomic_write
from ....errors import DkanError
from ...layers.canvas_legend import LEGEND_PREFIX, CanvasLegend
from ...layers.contrast_limits import percentile_limits
from ...layers.region_objects import DOMAINS_KEY
from ...layers.tile_map_layer import TileMapLayer
from ...layers.value_layers import (
    VALUE_COLUMN,
    color_grid,
    color_spots,
    make_grid_layer,
    make_spots_layer,
    shrink_color_bar,
)
from ...session.slide_layer import METADATA_PREFIX
from ...widgets.job_row import JobRow
from ...widgets.metrics_table import (
    MetricColumn,
    MetricsTable,
    MetricsTableData,
    make_metric_column,
    table_to_csv,
)
from ...widgets.qt_utils import fill_column, make_row, make_shrinkable, make_text_label
from ...widgets.region_plots import BoxGroup, BoxPlots, VolcanoPlot
from ...widgets.signal_connections import SignalConnections
from .comparison_job import ComparisonRequest, ComparisonResult, run_comparison
from .regions_model import RegionGroup, RegionsModel

REST = "the rest"
GENES, HALLMARK, BROWSE = "genes", "Hallmark sets", "a GMT file..."
SIGNIFICANT = 0.05
ONE_PATIENT = "Tiles of one slide are one patient: p speaks of this slide only."
FROM_DOMAINS = (
    "Domains were found in the same values, so p is too small; the size of a difference counts."
)
TABLE_ROWS = 9


class ComparisonBox(QWidget):
    """Chooses A and B, compares them, and shows plots and a table of the genes."""

    compared = Signal()

    def __init__(self, model: RegionsModel, connections: SignalConnections) -> None:
        super().__init__()
        self._model, self._session = model, model.session
        self.result: ComparisonResult | None = None
        self._set_layer: Layer | None = None
        self._hidden_layers: list[Layer] = []  # maps of genes, while that of a set is shown
        self._legend = CanvasLegend(model.session, LEGEND_PREFIX + "set_legend", "top_right", 10)
        self._chosen_set: str | None = None
        self._files: dict[str, Path] = {}
        self.a_combo, self.b_combo, self.of_combo = QComboBox(), QComboBox(), QComboBox()
        for combo in (self.a_combo, self.b_combo, self.of_combo):
            make_shrinkable(combo)
        self.of_combo.addItems([GENES, HALLMARK, BROWSE])
        self.compare_button = QPushButton("Compare")
        self.save_button = QPushButton("Save table...")
        self.job_row = JobRow(
            "compare regions",
            self.compare_button,
            (self.of_combo, 1),
            self.compare_button,
            self.save_button,
        )
        self.stale_label = make_text_label()
        self.volcano, self.box_plots = VolcanoPlot(), BoxPlots()
        self.table = MetricsTable("Gene", long_names=False)
        self.table.setFixedHeight(TABLE_ROWS * (self.table.fontMetrics().height() + 6))
        self._result_widgets = (self.volcano, self.box_plots, self.table, self.save_button)
        fill_column(
            self,
            make_row(QLabel("A"), (self.a_combo, 1), QLabel("with B"), (self.b_combo, 1)),
            self.job_row,
            self.stale_label,
            self.volcano,
            self.box_plots,
            self.table,
        )
        self.of_combo.activated.connect(self._on_of_chosen)
        for combo in (self.a_combo, self.b_combo):
            combo.activated.connect(lambda index, combo=combo: combo.setProperty("chosen", True))
        self.compare_button.clicked.connect(self.compare)
        self.save_button.clicked.connect(self._ask_save)
        self.volcano.gene_selected.connect(self.show_gene)
        self.table.symbol_selected.connect(self.show_gene)
        connections.connect(self._refresh_choices, model.changed)
        connections.connect(self._on_gene_changed, self._session.gene_changed)
        connections.connect(self._on_layer_removed, self._session.viewer.layers.events.removed)
        self._refresh_choices()
        self._show_result_widgets()

    def close_box(self) -> None:
        """Stop the job and remove the map of a gene set."""
        self.job_row.stop()
        self._remove_set_layer()

    # ---- choices -----------------------------------------------------------------------

    def _refresh_choices(self) -> None:
        """Offer the classes and regions; what was chosen stays chosen."""
        groups = self._model.groups
        names = [g.name for g in groups]
        classes = [g.name for g in groups if g.is_class]
        for combo, default, entries in (
            (self.a_combo, classes[0] if classes else "", names),
            (self.b_combo, classes[1] if len(classes) > 1 else REST, [REST, *names]),
        ):
            chosen = combo.currentText() if combo.property("chosen") else ""
            with signals_blocked(combo):
                combo.clear()
                combo.addItems(entries)
                combo.setCurrentText(chosen if chosen in entries else default)
            if chosen not in entries:
                combo.setProperty("chosen", False)
        self.compare_button.setEnabled(bool(names) and not self.job_row.busy)
        self._mark_stale()

    def _on_of_chosen(self, index: int) -> None:
        if self.of_combo.itemText(index) != BROWSE:
            return
        name, _ = QFileDialog.getOpenFileName(self, "Gene sets", "", "Gene sets (*.gmt);;All (*)")
        if not name:
            self.of_combo.setCurrentIndex(0)
            return
        path = Path(name)
        if path.name not in self._files:
            self.of_combo.insertItem(self.of_combo.count() - 1, path.name)
        self._files[path.name] = path
        self.of_combo.setCurrentText(path.name)

    def _group(self, name: str) -> RegionGroup | None:
        return next((g for g in self._model.groups if g.name == name), None)

    # ---- comparing ---------------------------------------------------------------------

    def compare(self) -> None:
        """Compare what is chosen in a worker thread."""
        a, b = self._group(self.a_combo.currentText()), self._group(self.b_combo.currentText())
        is_rest = self.b_combo.currentText() == REST
        if a is None or (b is None and not is_rest):
            self.job_row.status_label.setText("Draw a region first, or take one from a file.")
            return
        if a is b:
            self.job_row.status_label.setText("A and B are the same; choose another one.")
            return
        chosen = self.of_combo.currentText()
        request = ComparisonRequest(
            a.name,
            REST if b is None else b.name,
            a.geometries,
            None if b is None else b.geometries,
            self._model.tiles(),
            self._model.measured(),
            self._model.measured_depth(),
            {GENES: None, HALLMARK: ""}.get(chosen, self._files.get(chosen)),
            any(
                DOMAINS_KEY in o.layer.metadata for g in (a, b) if g is not None for o in g.objects
            ),
        )
        self._colors = QColor(*a.color), QColor("#9e9e9e") if b is None else QColor(*b.color)

        def job() -> Iterator[ComparisonResult]:
            yield run_comparison(request)

        self.job_row.start(job, self._show_result, "Comparing ...")

    def _show_result(self, result: ComparisonResult) -> None:
        self.result, self._chosen_set = result, None
        self._remove_set_layer()
        self.job_row.status_label.setText(describe_result(result))
        comparison = result.predicted.comparison
        x_label = f"difference: {_short(result.request.name_a)} \N{MINUS SIGN} "
        x_label += _short(result.request.name_b)
        if comparison.is_tested:
            y = -np.log10(comparison.p_value)
            significant = comparison.p_adjusted < SIGNIFICANT
            y_label = "\N{MINUS SIGN}log10 p (coloured: adjusted p < 0.05)"
        else:
            y, significant = np.abs(comparison.effect), np.zeros(len(comparison.symbols), bool)
            y_label = "difference in SD, not tested"
        self.volcano.set_genes(
            comparison.symbols, comparison.difference, y, significant, x_label, y_label
        )
        self.table.set_table_data(make_comparison_table(result))
        self._show_result_widgets()
        self._mark_stale()
        if result.request.sets is None:
            self._on_gene_changed()
        else:
            self._mark(None)
        self.table.scrollToTop()
        self.compared.emit()

    def _show_result_widgets(self) -> None:
        for widget in self._result_widgets:
            widget.setVisible(self.result is not None)

    def _mark_stale(self) -> None:
        """Say when regions have changed since the comparison."""
        result = self.result
        if result is None:
            self.stale_label.hide()
            return
        request = result.request
        is_stale = False
        for name, regions in (
            (request.name_a, request.regions_a),
            (request.name_b, request.regions_b),
        ):
            group = self._group(name)
            if regions is None:
                continue
            geometries = [] if group is None else group.geometries
            is_stale |= len(geometries) != len(regions) or not all(
                g.equals(r) for g, r in zip(geometries, regions, strict=True)
            )
        self.stale_label.setText("The regions have changed since; compare again.")
        self.stale_label.setVisible(is_stale)

    # ---- one gene ----------------------------------------------------------------------

    def show_gene(self, symbol: str) -> None:
        """Show the map of a gene, or of a gene set."""
        if self.result is None:
            return
        if self.result.request.sets is None:
            try:
                self._session.set_gene(symbol)
            except DkanError as error:
                self.job_row.status_label.setText(str(error))
            self._mark(symbol)
        else:
            self._chosen_set = symbol
            self._mark(symbol)
            self._draw_set(symbol)

    def _on_gene_changed(self) -> None:
        self._remove_set_layer()
        if self.result is not None and self.result.request.sets is None:
            self._mark(self._session.gene)

    def _mark(self, symbol: str | None) -> None:
        self.volcano.select(symbol)
        self.table.select_symbol(symbol)
        self._draw_boxes(symbol)

    def _draw_boxes(self, symbol: str | None) -> None:
        result = self.result
        symbols = () if result is None else result.predicted.comparison.symbols
        if result is None or symbol is None or symbol not in symbols:
            self.box_plots.hide()
            return
        groups: list[BoxGroup] = []
        for source, compared in (("predicted", result.predicted), ("measured", result.measured)):
            if compared is None or symbol not in compared.comparison.symbols:
                continue
            values = compared.values[:, compared.comparison.symbols.index(symbol)]
            request = result.request
            for name, inside, color in (
                (request.name_a, compared.in_a, self._colors[0]),
                (request.name_b, compared.in_b, self._colors[1]),
            ):
                shown = _short(name) if result.measured is None else f"{_short(name)}, {source}"
                groups.append(BoxGroup(shown, np.asarray(values[inside], float), color))
        kind = "predicted" if result.measured is None else "predicted and measured"
        self.box_plots.set_groups(f"{symbol}, {kind}, per tile", tuple(groups))
        self.box_plots.show()

    def _draw_set(self, title: str) -> None:
        """Show the predicted score of a gene set as a map."""
        assert self.result is not None
        compared, slide = self.result.predicted, self._model.slide
        if slide is None:
            return
        tiles = compared.tiles
        values = np.asarray(
            compared.values[:, compared.comparison.symbols.index(title)], np.float32
        )
        settings, metadata = self._session.settings, {METADATA_PREFIX: "gene set"}
        if self._set_layer is None:
            if tiles.grid is not None:
                layer: Layer = make_grid_layer(
                    tiles.grid, slide.mpp, title, opacity=settings.opacity, metadata=metadata
                )
            else:
                layer = make_spots_layer(
                    tiles.xy,
                    slide.mpp,
                    title,
                    tiles.pitch * slide.mpp,
                    features={VALUE_COLUMN: np.zeros(len(tiles.xy), np.float32)},
                    metadata=metadata,
                )
            maps = [o.layer for o in self._session.overlays]
            self._session.layers.insert(layer, slide, above=[slide.layer, *maps])
            self._set_layer = layer
            self._hidden_layers = [x for x in maps if x.visible]
            for hidden in self._hidden_layers:
                hidden.visible = False
        layer = self._set_layer
        layer.name = f"{title} predicted score"
        limits = percentile_limits([values])
        if isinstance(layer, TileMapLayer) and tiles.grid is not None:
            layer.set_tiles(tiles.grid.to_raster(values), settings.smooth_maps)
            color_grid(layer, limits, settings.colormap)
            bar = layer.colorbar
        else:
            assert isinstance(layer, Points)
            color_spots(layer, values, limits, settings.colormap)
            bar = layer.face_colorbar
        shrink_color_bar(bar)
        bar.visible = True
        self._legend.show(f"{title}\npredicted score of the set", alone=True)

    def _remove_set_layer(self) -> None:
        layer, self._set_layer = self._set_layer, None
        if layer is not None:
            self._session.layers.remove(layer)
            self._show_gene_maps()

    def _show_gene_maps(self) -> None:
        """Show the maps of genes again."""
        self._legend.hide()
        hidden, self._hidden_layers = self._hidden_layers, []
        for layer in hidden:
            layer.visible = True

    def _on_layer_removed(self, event: object = None) -> None:
        if self._set_layer is not None and self._set_layer not in self._session.viewer.layers:
            self._set_layer = None
            self._show_gene_maps()

    # ---- file --------------------------------------------------------------------------

    def _ask_save(self) -> None:
        if self.result is None:
            return
        request = self.result.request
        name = f"{request.name_a}-{request.name_b}.csv".replace("/", "_")
        chosen, _ = QFileDialog.getSaveFileName(self, "Save the comparison", name, "Table (*.csv)")
        if chosen:
            self.save_table(Path(chosen if chosen.lower().endswith(".csv") else f"{chosen}.csv"))

    def save_table(self, path: Path) -> None:
        """Write all columns of both comparisons as CSV."""
        if self.result is None:
            return
        try:
            with atomic_write(path) as temporary:
                text = table_to_csv(make_export_table(self.result))
                notes = [describe_result(self.result), *_provenance_lines(self.result)]
                lines = "".join(f"# {line}\n" for note in notes for line in note.splitlines())
                temporary.write_text(lines + text, encoding="utf-8")
        except DkanError as error:
            self.job_row.status_label.setText(str(error))
            return
        self.job_row.status_label.setText(
            f"{path.name} was written.\n{describe_result(self.result)}"
        )


def describe_result(result: ComparisonResult) -> str:
    """Return how much was compared, and what the test is worth."""
    request, compared = result.request, result.predicted
    c = compared.comparison
    a, b = request.name_a, request.name_b
    lines = [f"{a}: {c.n_a:,} tiles; {b}: {c.n_b:,}."]
    if compared.n_both:
        lines[0] += f" {compared.n_both:,} are in both and count for the smaller region."
    if c.is_tested:
        n = int((c.p_adjusted < SIGNIFICANT).sum())
        lines.append(f"{n:,} of {len(c.symbols):,} differ (adjusted p < 0.05). {ONE_PATIENT}")
    else:
        lines.append(
            f"Not tested: too few independent blocks of tiles ({c.blocks_a:.1f} and "
            f"{c.blocks_b:.1f}; 2 are needed). {ONE_PATIENT}"
        )
    if request.from_domains:
        lines.append(FROM_DOMAINS)
    if result.measured is not None:
        m = result.measured
        text = f"Measured: {m.comparison.n_a:,} and {m.comparison.n_b:,} spots"
        if np.isfinite(m.depth_a + m.depth_b):
            text += f", median counts {m.depth_a:,.0f} and {m.depth_b:,.0f}"
        lines.append(text + ("." if m.comparison.is_tested else "; not tested."))
    elif result.measured_reason:
        lines.append(f"Measured: {result.measured_reason}")
    return "\n".join(lines)


def make_comparison_table(result: ComparisonResult) -> MetricsTableData:
    """Make a table with a row per gene, predicted and, where there is one, measured."""
    c = result.predicted.comparison
    a, b = _short(result.request.name_a), _short(result.request.name_b)
    columns = [
        make_metric_column(
            "diff.", f"Mean of {a} minus mean of {b}, predicted", c.difference, "+.2f"
        ),
        make_metric_column("SD", "The same in standard deviations of a tile", c.effect, "+.1f"),
        _p_column("p adj.", c.p_adjusted),
        make_metric_column(
            "A > B",
            "Probability that a tile of A is above one of B; 50 % is no difference",
            c.superiority,
            ".0%",
        ),
    ]
    if result.measured is not None:
        m = result.measured.comparison
        columns += [
            make_metric_column(
                "meas. diff.",
                "The same, measured",
                _aligned(c.symbols, m.symbols, m.difference),
                "+.2f",
            ),
            _p_column("meas. p", _aligned(c.symbols, m.symbols, m.p_adjusted)),
        ]
    return MetricsTableData(c.symbols, tuple(columns))


def make_export_table(result: ComparisonResult) -> MetricsTableData:
    """Make the table of a file, with all columns."""
    symbols = result.predicted.comparison.symbols
    columns: list[MetricColumn] = []
    for prefix, compared in (("predicted", result.predicted), ("measured", result.measured)):
        if compared is None:
            continue
        c = compared.comparison
        for name in (
            "mean_a",
            "mean_b",
            "difference",
            "effect",
            "superiority",
            "p_value",
            "p_adjusted",
        ):
            values = _aligned(symbols, c.symbols, getattr(c, name))
            columns.append(make_metric_column(f"{prefix}_{name}", "", values))
    return MetricsTableData(symbols, tuple(columns))


def _provenance_lines(result: ComparisonResult) -> list[str]:
    from ....quality.block_bootstrap import BLOCK_SIDE_PITCHES
    from ....quality.region_comparison import N_PERMUTATIONS, PERMUTATION_SEED

    tiles = result.request.tiles
    record = {} if tiles is None else tiles.provenance
    names = ("version", "checkpoint", "checkpoint_sha256", "slide", "slide_fingerprint", "mpp")
    lines = [f"{name}: {record[name]}" for name in names if name in record]
    lines.append(
        f"test: permutation of blocks of {BLOCK_SIDE_PITCHES} pitches, {N_PERMUTATIONS} drawings, "
        f"seed {PERMUTATION_SEED}, inflation {result.predicted.comparison.inflation:.2f}, "
        "Benjamini-Hochberg"
    )
    return lines


def _p_column(title: str, p_adjusted: NDArray[np.float64]) -> MetricColumn:
    def show(row: int) -> str:
        p = p_adjusted[row]
        return "\N{EN DASH}" if np.isnan(p) else f"{p:.3f}" if p >= 0.001 else f"{p:.0e}"

    tooltip = (
        "From drawing blocks of neighbouring tiles again, adjusted for the number of genes "
        "(Benjamini-Hochberg)"
    )
    return MetricColumn(title, tooltip, p_adjusted, show)


def _aligned(
    symbols: tuple[str, ...], others: tuple[str, ...], values: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Values of ``others`` in the order of ``symbols``, NaN where there is none."""
    by_symbol = dict(zip(others, values.tolist(), strict=True))
    return np.array([by_symbol.get(s, np.nan) for s in symbols], np.float64)


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:23]}\N{HORIZONTAL ELLIPSIS}"
