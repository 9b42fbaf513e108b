"""The table of metrics and the plots, without a viewer."""

from __future__ import annotations

import csv
from dataclasses import replace
from io import StringIO

import numpy as np
from qtpy.QtCore import QPointF, Qt
from qtpy.QtWidgets import QWidget

from napari_dkan.viewer.panels.quality.boxes.domains_job import match_cluster_labels
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
from napari_dkan.viewer.widgets.qt_utils import fill_column
from napari_dkan.viewer.widgets.wide_table import ColumnPager


def make_table_data(count: int) -> MetricsTableData:
    """Genes G0, G1, ... with falling values; every third value is unknown."""
    values = np.where(np.arange(count) % 3 == 2, np.nan, -np.arange(float(count)))
    names = tuple(f"name, of {i}" for i in range(count))
    column = make_metric_column(
        "PCC [95 %]", "what it is", values, warning_mask=values < -2, warning="bad"
    )
    return MetricsTableData(tuple(f"G{i}" for i in range(count)), (column,), names)


def make_table(qtbot, count=6) -> MetricsTable:
    made = MetricsTable()
    qtbot.addWidget(made)
    made.set_table_data(make_table_data(count))
    return made


def displayed_symbols(table) -> list[str]:
    return [table.table_model.symbol_at(row) for row in range(table.table_model.rowCount())]


def test_unknown_values_sort_last_in_both_directions(qtbot):
    table = make_table(qtbot)
    assert displayed_symbols(table) == ["G0", "G1", "G3", "G4", "G2", "G5"]
    table.sortByColumn(1, Qt.SortOrder.AscendingOrder)
    assert displayed_symbols(table) == ["G4", "G3", "G1", "G0", "G2", "G5"]
    table.sortByColumn(0, Qt.SortOrder.DescendingOrder)
    assert displayed_symbols(table) == ["G5", "G4", "G3", "G2", "G1", "G0"]


def test_columns_out_of_sight_are_counted_and_reached_with_their_genes(qtbot):
    parent = QWidget()
    qtbot.addWidget(parent)
    table = MetricsTable()
    pager = ColumnPager(table)
    fill_column(parent, table, pager)
    parent.resize(300, 200)
    parent.show()
    data = make_table_data(40)
    columns = tuple(replace(data.columns[0], title=f"figure {i}") for i in range(9))
    table.set_table_data(replace(data, columns=columns))
    qtbot.waitUntil(pager.isVisible)
    seen, pages = set(range(10)) - set(pager.hidden_columns()), 0
    assert pager.text().startswith(f"{len(pager.hidden_columns())} more columns") and 0 in seen
    names = table.frozen_names
    assert names.isHidden()
    while "first" not in pager.text():
        expected = pager.hidden_columns()[0]
        qtbot.mouseClick(pager, Qt.MouseButton.LeftButton)
        pages += 1
        assert names.isVisible() and names.width() == table.columnWidth(0)
        if "first" not in pager.text():
            assert table.columnViewportPosition(expected) == names.width()  # beside the genes
        seen |= set(range(expected, 10)) - set(pager.hidden_columns())
        assert pages < 10
    assert seen == set(range(10))
    table.scrollToBottom()
    assert names.verticalScrollBar().value() == table.verticalScrollBar().value() > 0
    place = names.visualRect(names.model().index(39, 0)).center()
    with qtbot.waitSignal(table.symbol_selected) as selected:
        qtbot.mouseClick(names.viewport(), Qt.MouseButton.LeftButton, pos=place)
    assert selected.args == [table.table_model.symbol_at(39)]
    assert names.isVisible()  # the columns stay where they are
    qtbot.mouseClick(pager, Qt.MouseButton.LeftButton)
    assert names.isHidden() and table.horizontalScrollBar().value() == 0
    table.set_table_data(data)
    qtbot.waitUntil(pager.isHidden)


def test_selection_survives_sorting_and_filtering(qtbot):
    table = make_table(qtbot, 20_000)
    selected = []
    table.symbol_selected.connect(selected.append)
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
    assert table.table_model.symbol_at(table.currentIndex().row()) == "G777" and not selected


def test_clusters_are_matched_by_overlap():
    like = np.array([2, 2, 2, 1, 1, 3, 0])
    mine = np.array([1, 1, 1, 3, 3, 2, 4])
    assert match_cluster_labels(mine, like).tolist() == [2, 2, 2, 1, 1, 3, 4]


def test_cells_with_a_warning_are_tinted(qtbot):
    table = make_table(qtbot)
    model, role = table.table_model, Qt.ItemDataRole
    bad, good, unknown = (model.index(row, 1) for row in (3, 0, 5))
    assert [model.data(i) for i in (bad, good, unknown)] == ["-4.00", "-0.00", "\N{EN DASH}"]
    assert model.data(bad, role.BackgroundRole) is not None
    assert model.data(good, role.BackgroundRole) is None
    assert (model.data(bad, role.ToolTipRole), model.data(good, role.ToolTipRole)) == (
        "bad",
        "what it is",
    )


def test_filter_searches_names_too(qtbot):
    table = make_table(qtbot)
    for text, found in (("g3", ["G3"]), ("OF 4", ["G4"]), ("xyz", [])):
        table.table_model.set_filter(text)
        assert displayed_symbols(table) == found


def test_csv_round_trip():
    rows = list(csv.reader(StringIO(table_to_csv(make_table_data(3)))))
    assert rows == [["gene", "PCC [95 %]"], ["G0", "-0"], ["G1", "-1"], ["G2", ""]]


def test_click_selects_only_a_near_dot(qtbot):
    scatter = MeasuredPredictedScatter()
    qtbot.addWidget(scatter)
    scatter.resize(300, 240)
    scatter.set_values(np.array([0.0, 1.0, np.nan]), np.array([0.0, 1.0, 0.5]))
    scatter.select_row(1)
    selected = []
    scatter.spot_selected.connect(selected.append)
    for place in (
        QPointF(*scatter.dot_positions()[1]),
        QPointF(*scatter.dot_positions()[:2].mean(axis=0)),
    ):
        qtbot.mouseClick(scatter, Qt.MouseButton.LeftButton, pos=place.toPoint())
    assert selected == [1]
    assert not scatter.grab().isNull()  # also with a spot without a value


def test_histogram_paints_incomplete_data(qtbot):
    plot = CorrelationHistogram()
    qtbot.addWidget(plot)
    for pcc, ridge in (([0.5, np.nan, -0.3], [0.1, 0.2]), ([1.0], []), ([], [])):
        plot.set_correlations(np.array(pcc, float), np.array(ridge, float))
        plot.set_marked_pcc(0.5)
        assert not plot.grab().isNull()
