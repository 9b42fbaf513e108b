"""Measured sections in a viewer: load, register, compare, display, delete."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import anndata
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from napari_dkan.slide import open_slide
from napari_dkan.spatial.coordinates import swap_xy
from napari_dkan.viewer.layers.name_halos import is_name_halo
from napari_dkan.viewer.layers.region_layers import LABEL_TEXT
from napari_dkan.viewer.panels.predict.predict_widget import PredictWidget
from napari_dkan.viewer.panels.quality.data.loaded_section import (
    BY_ARRAY,
    BY_COORDINATES,
    BY_FILES,
    SECTION_KEY,
)
from napari_dkan.viewer.panels.quality.data.quality_model import MapKind, MapLayout
from napari_dkan.viewer.panels.quality.maps.section_maps import OFF_TISSUE_COLOR, SECTION_LEGEND
from napari_dkan.viewer.panels.quality.quality_controller import get_quality_controller
from napari_dkan.viewer.plugin.file_readers import get_measured_reader, get_slide_reader

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_dkan.viewer.panels.quality.quality_controller import QualityController


GENES = ("ERBB2", "GATA3", "CD74", "COL1A1", "KRT8", "ACTB")  # MALAT1 is not measured
SIDE, PITCH = 5, 250  # spots of a square array, px apart (175 um)


def write_section(file, image, *, shift=(0.0, 0.0), scale=1.0, genes=GENES, seed=1):
    """Write random counts as an h5ad, which names its image if there is one."""
    at = np.stack(np.meshgrid(range(SIDE), range(SIDE)), axis=-1).reshape(-1, 2)
    counts = np.random.default_rng(seed).poisson(4 + at.sum(axis=1)[:, None], (SIDE**2, len(genes)))
    uns = {"spot_pitch_um": 0.7 * PITCH, "spot_diameter_um": 100.0}
    data = anndata.AnnData(
        counts.astype(np.float32),
        obs=pd.DataFrame(
            {"array_row": at[:, 1], "array_col": at[:, 0]}, index=[f"{x}x{y}" for x, y in at]
        ),
        var=pd.DataFrame(index=list(genes)),
        obsm={"spatial": scale * (300.0 + PITCH * at) + np.array(shift)},
        uns=uns | ({} if image is None else {"image": str(image)}),
    )
    file.parent.mkdir(exist_ok=True)
    data.write_h5ad(file)
    return file


@pytest.fixture
def file(tmp_path, tiny_slide_file):
    return write_section(tmp_path / "D1.h5ad", tiny_slide_file)


@pytest.fixture
def quality(panel: PredictWidget):
    made = get_quality_controller(panel.session)
    yield made
    made.close()


@pytest.fixture
def load(quality: QualityController, until):
    """Load sections and wait for the comparison."""

    def load_sections(*paths, compared: bool = True):
        quality.load(paths)
        until(lambda: not quality.busy)
        assert not compared or quality.model.comparison is not None, quality.session.message.text
        return quality

    return load_sections


def layer_names(quality: QualityController):
    return [layer.name for layer in quality.session.viewer.layers]


def test_dropped_section_opens_its_image_and_is_compared(
    make_panel: Callable[..., PredictWidget], file, until
):
    panel = make_panel()
    viewer, session = panel.session.viewer, panel.session
    (layer,) = viewer.open(file, plugin="napari-dkan")
    quality = get_quality_controller(session)
    until(lambda: quality.model.comparison is not None and not quality.busy)
    section = quality.model.section
    assert section.layer is layer and layer.metadata[SECTION_KEY] is section
    assert session.slide is section.slide and session.slide.slide.name == "drawn"
    assert section.registration == BY_FILES and viewer.layers[0] is session.slide.layer
    assert layer_names(quality)[1:] == [
        "ERBB2 measured",
        "ERBB2 predicted at spots",
        "ERBB2 residual",
    ]
    np.testing.assert_allclose(layer.data, swap_xy(section.xy))
    np.testing.assert_allclose(layer.scale, 0.7)
    assert [str(u) for u in layer.units] == ["micrometer", "micrometer"]
    assert layer.face_colorbar.visible and quality.model.candidates == ()
    quality.close()


def test_section_dropped_before_the_panel_opens(
    make_napari_viewer,
    make_panel: Callable[..., PredictWidget],
    file,
    until,
    monkeypatch,
    tiny_checkpoint_file,
):
    viewer = make_napari_viewer()
    viewer.open(file, plugin="napari-dkan")
    monkeypatch.setattr(
        "napari_dkan.viewer.panels.predict.model_box.list_bundled_checkpoints",
        lambda: [tiny_checkpoint_file],
    )
    panel = PredictWidget(viewer)
    quality = get_quality_controller(panel.session)
    until(lambda: quality.model.comparison is not None and not quality.busy)
    assert len(quality.model.sections) == 1 and layer_names(quality)[1] == "ERBB2 measured"
    quality.close()
    panel.shut_down()


def test_reader_accepts_only_sections(tmp_path, file, tiny_slide_file):
    assert get_measured_reader(str(file)) is not None
    assert get_measured_reader(str(file.parent)) is not None
    (tmp_path / "none").mkdir()
    for name in ("table.tsv", "other.h5", "none"):
        path = tmp_path / "none" / name
        if not path.exists() and path.suffix:
            path.write_text("a\tb\n1\t2\n")
        assert get_measured_reader(str(path)) is None
    assert get_measured_reader(str(tmp_path / "none")) is None
    assert get_measured_reader([str(tiny_slide_file)]) is None
    store = tmp_path / "store.zarr"  # SpatialData: a table beside whatever else
    (store / "tables" / "table").mkdir(parents=True)
    for folder in (store, store / "tables" / "table"):
        (folder / "zarr.json").write_text(
            '{"zarr_format": 3, "node_type": "group", "attributes": {"region": "spots"}}'
        )
    assert get_measured_reader(str(store)) is not None and get_slide_reader(str(store)) is None


def test_metrics_equal_those_of_evaluate(load, file, panel: PredictWidget):
    from napari_dkan.training.data.measured_section import make_measured_section
    from napari_dkan.training.evaluation.evaluate_checkpoint import evaluate_checkpoint

    comparison = load(file).model.comparison
    session = panel.session
    measured = make_measured_section(read_section(file), session.checkpoint)
    report = evaluate_checkpoint(session.checkpoint, session.slide.slide, measured)
    expected = [report["per_gene_pcc"][g.symbol]["dkan"] for g in comparison.metrics_per_gene]
    np.testing.assert_allclose([g.pcc for g in comparison.metrics_per_gene], expected, atol=1e-4)
    assert comparison.unmeasured_genes == ("MALAT1",)


def read_section(file):
    from napari_dkan.expression.readers.layouts.h5ad_sections import read_h5ad_section

    return read_h5ad_section(file)


def test_gene_changes_all_three_maps(load, file):
    quality = load(file)
    measured, predicted, residual = quality.section_maps.existing_layers()
    quality.session.set_gene("CD74")
    column = quality.model.comparison.panel.row("CD74")
    np.testing.assert_allclose(
        measured.features["value"], quality.model.comparison.measured[:, column]
    )
    difference = predicted.features["value"] - measured.features["value"]
    np.testing.assert_allclose(residual.features["value"], difference, atol=1e-6)
    assert [m.name for m in (measured, predicted)] == ["CD74 measured", "CD74 predicted at spots"]
    assert tuple(measured.face_contrast_limits) == tuple(predicted.face_contrast_limits)
    low, high = residual.face_contrast_limits
    assert low == -high < 0
    legend = quality.session.viewer.canvas.overlays[SECTION_LEGEND]
    assert "expression, log scale\nlimits of these spots" in legend.text
    canvas, wide = quality.session.viewer.canvas, quality.session.viewer.canvas.size
    for width, place in ((240, "bottom_left"), (900, "bottom_right")):  # below it, or beside it
        canvas.size = (wide[0], width)
        assert canvas.overlays.scale_bar.position == place and legend.position == "bottom_left"
    canvas.size = wide
    quality.session.set_gene("MALAT1")  # predicted, but not measured: rings without a colour
    assert np.isnan(measured.features["value"]).all()
    assert np.isfinite(predicted.features["value"]).all()
    assert "not measured in D1" in quality.session.viewer.canvas.overlays[SECTION_LEGEND].text


def test_maps_are_not_drawn_for_every_batch(quality: QualityController, file, until, monkeypatch):
    """Drawing delays prediction: 186 spots took 45 s instead of 5."""
    monkeypatch.setattr(
        "napari_dkan.viewer.panels.quality.data.comparison_worker.REDRAW_INTERVAL_S", 1e9
    )
    drawn = []
    quality.model.prediction_updated.connect(lambda: drawn.append(quality.model.progress))
    quality.load([file])
    until(lambda: quality.model.comparison is not None and not quality.busy)
    assert len(drawn) == 1  # when the labels are known
    predicted = next(m for m in quality.section_maps.existing_layers() if "predicted" in m.name)
    assert np.isfinite(predicted.features["value"]).all()


def test_blink_swipe_and_side_by_side(load, file):
    quality = load(file)
    viewer, maps = quality.session.viewer, quality.section_maps.existing_layers()
    before = list(viewer.layers)
    other = viewer.add_points([[0.0, 0.0]], units=("um", "um"), axis_labels=("y", "x"))

    def visible():
        return [m.visible for m in maps]

    def bars():
        """Where the colour bars that are seen stand."""
        bars = [(m, m.face_colorbar) for m in maps if m.visible]
        return [str(bar.position) for _, bar in bars if bar.visible]

    assert visible() == [True, False, False] and bars() == ["bottom_left"]
    quality.model.blink()
    assert visible() == [False, True, False] and quality.model.visible_map is MapKind.PREDICTED
    quality.model.set_swipe(True)
    assert visible() == [True, True, False] and len(bars()) == 1  # on one scale
    quality.map_layout.set_divider(700.0)
    assert (maps[0].shown == (quality.model.section.xy[:, 0] < 700)).all()
    assert (maps[1].shown == ~maps[0].shown).all() and 0 < maps[0].shown.sum() < SIDE**2
    quality.model.set_layout(MapLayout.SIDE_BY_SIDE)
    assert visible() == [True, True, True] and not other.visible and maps[0].shown.all()
    assert bars() == 3 * ["top_right"]
    grid = viewer.canvas.grid
    cells = [[viewer.layers[i] for i in cell] for _, cell in grid.iter_viewboxes(viewer.layers)]
    assert [cell[-1] for cell in cells[1:]] == list(maps)
    assert all(cell[0].rgb for cell in cells)  # the slide under each
    middle = maps[0].extent.world.mean(axis=0)  # drawn lower, so that colour bars are beside
    assert viewer.scene.camera.center[-2] < middle[0] - 1
    quality.session.set_gene("KRT8")
    assert len(quality.session.slides) == 1  # its copies are not slides
    quality.model.blink()  # back on the slide
    assert not grid.enabled and list(viewer.layers) == [*before, other] and other.visible
    assert visible() == [True, False, False]


def test_clicked_spot_is_chosen(load, file, panel: PredictWidget, qtbot):
    quality = load(file)
    row = 7
    x, y = quality.model.comparison.spots.xy[row] + 9
    world = (0.7 * y, 0.7 * x)
    assert quality.session.is_click_claimed(world) and not quality.session.is_click_claimed(
        (5.0, 5.0)
    )
    assert quality.spot_picker.spot_at(world) == row
    quality.model.choose_spot(row)
    rows = {gene: value for gene, value, _ in panel.spot_box.gene_bars.rows}
    measured = panel.spot_box.gene_bars.measured
    column = quality.model.comparison.panel.row("ERBB2")
    assert measured["ERBB2"] == pytest.approx(quality.model.comparison.measured[row, column])
    assert rows["ERBB2"] == pytest.approx(quality.model.comparison.predicted[row, column])
    assert "measured" in panel.spot_box.units_label.text()
    text = quality.spot_picker.format_values(row)
    assert "predicted" in text and f"{measured['ERBB2']:.2f}" in text
    panel.click_predictor.predict_at(*(quality.model.comparison.spots.xy[0] + PITCH / 2))
    qtbot.waitUntil(lambda: not panel.click_predictor.busy, timeout=60_000)
    assert quality.model.spot_row is None and not panel.spot_box.gene_bars.measured


def test_section_of_the_open_slide_is_chosen(load, file, tmp_path, tiny_slide_file, until):
    folder = tmp_path / "study"
    other = tmp_path / "elsewhere.png"
    Image.fromarray(np.full((900, 900, 3), 220, np.uint8)).save(other)
    write_section(folder / "A1.h5ad", other)
    write_section(folder / "drawn.h5ad", tiny_slide_file)
    quality = load(folder)
    assert quality.model.section.name == "drawn"
    assert [c.name for c in quality.model.candidates] == ["A1", "drawn"]
    first = quality.model.section
    quality.load_candidate(quality.model.candidates[0])
    until(lambda: len(quality.model.sections) == 2 and not quality.busy)
    second = quality.model.section
    assert second.name == "A1" and second.slide is not first.slide
    # all slides lie at one place of the canvas: only the chosen section and its slide are shown
    assert second.slide.layer.visible and not first.slide.layer.visible
    assert not first.layer.visible
    quality.choose_section(first)
    assert first.slide.layer.visible and not second.slide.layer.visible
    assert not second.layer.visible and quality.session.slide is first.slide


def test_landmarks_register_a_section_on_another_scan(
    panel: PredictWidget, quality: QualityController, tmp_path, tiny_slide_file, until
):
    """The section's own image is half as large, and its spots were placed on that."""
    small = tmp_path / "small.png"
    with open_slide(tiny_slide_file) as slide:
        Image.fromarray(slide.read_region(0, 0, 1600, 1600)).resize((800, 800)).save(small)
    quality.load([write_section(tmp_path / "D2.h5ad", small, scale=0.5)])
    until(lambda: not quality.busy)
    session = quality.session
    assert (
        len(session.slides) == 2
        and "own image, small.png, which was opened" in session.message.text
    )
    session.viewer_slides.set_current(session.slides[0])
    before = [*(slide.layer for slide in session.slides), quality.model.section.layer]
    quality.start_landmarks()
    landmarks = quality.model.landmarks
    assert "Point 1 of 3" in landmarks.instruction and session.is_click_claimed((5.0, 5.0))
    own = np.array([(100.0, 100), (700, 150), (300, 650), (600, 500)])

    def pair(place, miss=0.0):
        world = landmarks.source_to_world(place)
        landmarks.click((float(world[0]), float(world[1])))
        assert "same place on the slide" in landmarks.instruction
        landmarks.click(tuple(0.7 * swap_xy(2 * place + miss)))

    for place in own[:3]:
        pair(place)
    assert landmarks.can_finish and landmarks.rms_error_um == pytest.approx(0, abs=1e-6)
    pair(own[3], miss=40.0)
    assert 2 < landmarks.rms_error_um < 28
    landmarks.undo()
    landmarks.undo()
    assert len(landmarks.pairs) == 3
    quality.end_landmarks(apply=True)
    until(lambda: not quality.busy)
    section = quality.model.section
    assert section.registration == "by 3 landmarks" and section.slide is session.slides[0]
    layers = session.viewer.layers
    assert layers.index(section.layer) > layers.index(section.slide.layer)
    assert [slide.layer.visible for slide in session.slides] == [True, False]
    np.testing.assert_allclose(section.xy, 2 * section.source_xy, atol=1e-6)
    assert quality.model.comparison is not None
    assert all(layer in session.viewer.layers for layer in before)
    quality.start_landmarks()
    quality.end_landmarks()
    assert section.registration == "by 3 landmarks" and quality.model.comparison is not None


def test_spots_off_the_tissue_are_crossed_out(load, tmp_path, until):
    shifted = write_section(tmp_path / "D3.h5ad", None, shift=(-290, -290))
    quality = load(shifted)
    section = quality.model.section
    assert section.registration == BY_COORDINATES
    off = section.placement.off_tissue
    assert off.any() and not off.all()
    red = np.array([c == "x" for c in map(str, section.layer.symbol)])
    assert (red == off).all(), OFF_TISSUE_COLOR
    assert (
        f"{off.sum()}" in quality.session.message.text and "tissue" in quality.session.message.text
    )
    assert quality.session.message.is_warning
    before = "Its maps are hidden; predict again."
    quality.session.message.show(before, warning=True)
    quality.session.tissue_edited.emit()  # checked again, as after another pixel size
    until(lambda: quality.session.message.text.count("\n") == 1 and not quality.busy)
    assert before in quality.session.message.text  # both are seen


def test_coordinates_of_another_scale_are_recognised(load, tmp_path):
    quality = load(write_section(tmp_path / "D4.h5ad", None, scale=2.0))
    assert quality.model.section.registration == BY_ARRAY
    np.testing.assert_allclose(
        quality.model.section.xy, quality.model.section.source_xy / 2, rtol=1e-3
    )
    assert "2 times as large" in quality.session.message.text


def test_bad_sections_show_a_message_and_leave_no_layer(
    load, panel: PredictWidget, quality: QualityController, tmp_path, until
):
    session = panel.session
    bare = tmp_path / "bare.h5ad"
    anndata.AnnData(np.ones((4, 2), np.float32)).write_h5ad(bare)
    before = list(session.viewer.layers)
    session.viewer.open(bare, plugin="napari-dkan")
    until(lambda: not quality.busy and session.message.is_warning)
    assert "obsm['spatial']" in session.message.text
    assert list(session.viewer.layers) == before and not quality.model.sections

    load(write_section(tmp_path / "E1.h5ad", None, genes=("AAA", "BBB")), compared=False)
    assert "measures none of the checkpoint's" in session.message.text
    assert quality.model.comparison is None and quality.model.section.name == "E1"

    load(write_section(tmp_path / "E2.h5ad", None, shift=(5000, 0)), compared=False)
    assert "off the slide" in session.message.text and session.message.is_warning
    assert quality.model.section.placement.off_slide.all() and quality.model.comparison is None

    load(tmp_path / "gone.h5ad", compared=False)
    assert "does not exist" in session.message.text


def test_deleted_layers(load, file, quality: QualityController, until):
    session, layers = quality.session, quality.session.viewer.layers
    quality.load([file])
    until(lambda: quality.model.pair is not None)
    layers.remove(quality.model.section.layer)
    assert quality.model.section is None and not quality.model.sections and not quality.busy
    until(lambda: len(layers) == 1)
    load(file)
    quality.model.set_layout(MapLayout.SIDE_BY_SIDE)
    section, slide = quality.model.section, session.slide
    path = slide.slide.path
    layers.remove(slide.layer)
    assert (
        not quality.busy and quality.model.comparison is None and quality.model.section is section
    )
    assert not session.viewer.canvas.grid.enabled and list(layers) == [section.layer]
    assert "was closed" in session.message.text
    session.viewer.open(path, plugin="napari-dkan")  # the section finds its slide
    until(lambda: quality.model.comparison is not None and not quality.busy)
    layers.remove(quality.section_maps.existing_layers()[1])  # the other maps stay
    assert len(quality.section_maps.existing_layers()) == 2 and quality.model.comparison is not None
    quality.model.show_map(MapKind.PREDICTED)  # it is created again
    assert [m.visible for m in quality.section_maps.existing_layers()] == [False, True, False]


def test_another_checkpoint_is_compared_again(load, file, until):
    quality = load(file)
    session, before = quality.session, quality.model.comparison
    square = [[100.0, 100.0], [100.0, 900.0], [900.0, 900.0], [900.0, 100.0]]
    layers = session.viewer.layers
    regions = session.viewer.add_shapes([square], units=("um", "um"), axis_labels=("y", "x"))
    regions.features, regions.text = {"label": ["gland"]}, LABEL_TEXT
    until(lambda: is_name_halo(layers[-2]))
    session.set_checkpoint(replace(session.checkpoint, sha256="another"))
    assert quality.model.comparison is None and quality.busy
    until(lambda: quality.model.comparison is not None and not quality.busy)
    np.testing.assert_allclose(quality.model.comparison.predicted, before.predicted, atol=1e-5)
    assert layers[-1] is regions and is_name_halo(layers[-2])  # spots do not cover names
