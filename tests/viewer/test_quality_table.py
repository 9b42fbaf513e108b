"""The table of figures and the plots, without a viewer."""

from __future__ import annotations

import csv
from io import StringIO

import numpy as np
from qtpy.QtCore import QPointF, Qt

from napari_dkan.viewer.panels.quality.data.tile_map_lookup import match_cluster_labels
from napari_dkan.viewer.widgets.correlation_plots import (
    CorrelationHistogram,
    MeasuredPredictedScatter,
)
from napari_dkan.viewer.widgets.metrics_table import (
    MetricsTable,
    MetricsTableData,
    make_metric_column,
    table_to_csv,
)


def rows_of(count: int) -> MetricsTableData:
    """Genes G0, G1, ... with falling figures; those of every third gene are not known."""
    values = np.where(np.arange(count) % 3 == 2, np.nan, -np.arange(float(count)))
    names = tuple(f"name, of {i}" for i in range(count))
    column = make_metric_column(
        "PCC [95 %]", "what it is", values, warning_mask=values < -2, warning="bad"
    )
    return MetricsTableData(tuple(f"G{i}" for i in range(count)), (column,), names)


def table_of(qtbot, count=6) -> MetricsTable:
    made = MetricsTable()
    qtbot.addWidget(made)
    made.set_table_data(rows_of(count))
    return made


def order(table) -> list[str]:
    return [table.figures.symbol(row) for row in range(table.figures.rowCount())]


def test_what_is_not_known_sorts_last_both_ways(qtbot):
    table = table_of(qtbot)
    assert order(table) == ["G0", "G1", "G3", "G4", "G2", "G5"]
    table.sortByColumn(1, Qt.SortOrder.AscendingOrder)
    assert order(table) == ["G4", "G3", "G1", "G0", "G2", "G5"]
    table.sortByColumn(0, Qt.SortOrder.DescendingOrder)
    assert order(table) == ["G5", "G4", "G3", "G2", "G1", "G0"]


def test_the_chosen_gene_keeps_its_row_through_sorting_and_searching(qtbot):
    table = table_of(qtbot, 20_000)
    picked = []
    table.symbol_selected.connect(picked.append)
    table.select_symbol("G777")
    for change in (
        lambda: table.sortByColumn(1, Qt.SortOrder.AscendingOrder),
        lambda: table.table_model.set_filter("g77"),
        lambda: table.sortByColumn(0, Qt.SortOrder.DescendingOrder),
    ):
        change()
        assert table.table_model.symbol_at(table.currentIndex().row()) == "G777"
    table.table_model.set_filter("G1234")
    assert not table.selectionModel().hasSelection()
    table.table_model.set_filter("")
    assert table.table_model.symbol_at(table.currentIndex().row()) == "G777" and not picked


def test_clusters_take_the_numbers_of_those_they_overlap_most():
    like = np.array([2, 2, 2, 1, 1, 3, 0])
    mine = np.array([1, 1, 1, 3, 3, 2, 4])
    assert match_cluster_labels(mine, like).tolist() == [2, 2, 2, 1, 1, 3, 4]


def test_cells_say_what_is_wrong_with_them(qtbot):
    table = table_of(qtbot)
    model, role = table.table_model, Qt.ItemDataRole
    bad, good, unknown = (model.index(row, 1) for row in (3, 0, 5))
    assert [model.data(i) for i in (bad, good, unknown)] == ["-4.00", "-0.00", "\N{EN DASH}"]
    assert model.data(bad, role.BackgroundRole) is not None
    assert model.data(good, role.BackgroundRole) is None
    assert (model.data(bad, role.ToolTipRole), model.data(good, role.ToolTipRole)) == (
        "bad",
        "what it is",
    )


def test_search_finds_names_too(qtbot):
    table = table_of(qtbot)
    for text, found in (("g3", ["G3"]), ("OF 4", ["G4"]), ("xyz", [])):
        table.table_model.set_filter(text)
        assert order(table) == found


def test_a_csv_reader_gets_the_table_back():
    rows = list(csv.reader(StringIO(table_to_csv(rows_of(3)))))
    assert rows == [["gene", "PCC [95 %]"], ["G0", "-0"], ["G1", "-1"], ["G2", ""]]


def test_a_click_beside_every_dot_picks_none(qtbot):
    scatter = MeasuredPredictedScatter()
    qtbot.addWidget(scatter)
    scatter.resize(300, 240)
    scatter.set_values(np.array([0.0, 1.0, np.nan]), np.array([0.0, 1.0, 0.5]))
    scatter.select_row(1)
    picked = []
    scatter.spot_selected.connect(picked.append)
    for place in (QPointF(*scatter.dot_positions()[1]), scatter._plot_rect().center()):
        qtbot.mouseClick(scatter, Qt.MouseButton.LeftButton, pos=place.toPoint())
    assert picked == [1]
    assert not scatter.grab().isNull()  # it paints, a spot without a value or not


def test_the_distribution_paints_whatever_is_known(qtbot):
    plot = CorrelationHistogram()
    qtbot.addWidget(plot)
    for pcc, ridge in (([0.5, np.nan, -0.3], [0.1, 0.2]), ([1.0], []), ([], [])):
        plot.set_correlations(np.array(pcc, float), np.array(ridge, float))
        plot.set_marked_pcc(0.5)
        assert not plot.grab().isNull()
