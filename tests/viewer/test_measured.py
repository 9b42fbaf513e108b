"""Measured spots in a real viewer: load, register, compare, look, delete."""

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
from napari_dkan.viewer.plugin.file_readers import get_measured_reader
from napari_dkan.viewer.plugin.slide_reader import get_slide_reader

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_dkan.viewer.panels.quality.quality_widget import QualityWidget


if TYPE_CHECKING:
    from napari_dkan.viewer.panels.quality.quality_controller import QualityController


GENES = ("ERBB2", "GATA3", "CD74", "COL1A1", "KRT8", "ACTB")  # MALAT1 is not measured
SIDE, PITCH = 5, 250  # spots of a made-up square array, px apart (175 um)


def made_section(file, image, *, shift=(0.0, 0.0), scale=1.0, genes=GENES, seed=1):
    """Made-up counts as an h5ad; without an image it does not name any."""
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
    return made_section(tmp_path / "D1.h5ad", tiny_slide_file)


@pytest.fixture
def quality(panel: PredictWidget):
    made = get_quality_controller(panel.session)
    yield made
    made.close()


@pytest.fixture
def load(quality: QualityController, until):
    """Load by the button's way and wait for the comparison."""

    def now(*paths, compared: QualityWidget = True):
        quality.load(paths)
        until(lambda: not quality.busy)
        assert not compared or quality.comparison is not None, quality.session.message.text
        return quality

    return now


def names(quality: QualityController):
    return [layer.name for layer in quality.session.viewer.layers]


def test_a_dropped_section_opens_its_image_and_is_compared(
    make_panel: Callable[..., PredictWidget], file, until
):
    panel = make_panel()
    viewer, session = panel.session.viewer, panel.session
    (layer,) = viewer.open(file, plugin="napari-dkan")
    quality = get_quality_controller(session)
    until(lambda: quality.comparison is not None and not quality.busy)
    section = quality.section
    assert section.layer is layer and layer.metadata[SECTION_KEY] is section
    assert session.slide is section.slide and session.slide.slide.name == "drawn"
    assert section.registration == BY_FILES and viewer.layers[0] is session.slide.layer
    assert names(quality)[1:] == [
        "ERBB2 measured - D1",
        "ERBB2 predicted - D1",
        "ERBB2 residual (pred. - meas.) - D1",
    ]
    np.testing.assert_allclose(layer.data, swap_xy(section.xy))
    np.testing.assert_allclose(layer.scale, 0.7)
    assert [str(u) for u in layer.units] == ["micrometer", "micrometer"]
    assert layer.face_colorbar.visible and quality.candidates == ()
    quality.close()


def test_what_is_dropped_before_the_panel_opens_is_taken_then(
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
    until(lambda: quality.comparison is not None and not quality.busy)
    assert len(quality.sections) == 1 and names(quality)[1] == "ERBB2 measured - D1"
    quality.close()
    panel.shut_down()


def test_the_reader_takes_only_what_holds_a_section(tmp_path, file, tiny_slide_file):
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


def test_the_numbers_are_those_of_evaluate(load, file, panel: PredictWidget):
    from napari_dkan.training.data.measured_section import make_measured_section
    from napari_dkan.training.evaluation.evaluate_checkpoint import evaluate_checkpoint

    comparison = load(file).comparison
    session = panel.session
    measured = make_measured_section(panel_section(file), session.checkpoint)
    report = evaluate_checkpoint(session.checkpoint, session.slide.slide, measured)
    expected = [report["per_gene_pcc"][g.symbol]["dkan"] for g in comparison.table]
    np.testing.assert_allclose([g.pcc for g in comparison.table], expected, atol=1e-4)
    assert comparison.missing == ("MALAT1",)


def panel_section(file):
    from napari_dkan.expression.readers.h5ad_sections import read_h5ad_section

    return read_h5ad_section(file)


def test_a_gene_changes_all_three_maps_on_one_scale(load, file):
    quality = load(file)
    measured, predicted, residual = quality.map_layers()
    quality.session.set_gene("CD74")
    column = quality.comparison.panel.row("CD74")
    np.testing.assert_allclose(measured.features["value"], quality.comparison.measured[:, column])
    difference = predicted.features["value"] - measured.features["value"]
    np.testing.assert_allclose(residual.features["value"], difference, atol=1e-6)
    assert [m.name.split(" - ")[0] for m in (measured, predicted)] == [
        "CD74 measured",
        "CD74 predicted",
    ]
    assert tuple(measured.face_contrast_limits) == tuple(predicted.face_contrast_limits)
    low, high = residual.face_contrast_limits
    assert low == -high < 0
    assert "log10(1 + counts" in quality.session.viewer.canvas.overlays[SECTION_LEGEND].text
    quality.session.set_gene("MALAT1")  # predicted, but not measured: rings without a colour
    assert np.isnan(measured.features["value"]).all()
    assert np.isfinite(predicted.features["value"]).all()
    assert "not measured in D1" in quality.session.viewer.canvas.overlays[SECTION_LEGEND].text


def test_maps_are_not_drawn_for_every_batch(quality: QualityController, file, until, monkeypatch):
    """Drawing holds up predicting: 186 spots took 45 s instead of 5."""
    monkeypatch.setattr(
        "napari_dkan.viewer.panels.quality.data.comparison_worker.REDRAW_INTERVAL_S", 1e9
    )
    drawn = []
    quality.prediction_updated.connect(lambda: drawn.append(quality.progress))
    quality.load([file])
    until(lambda: quality.comparison is not None and not quality.busy)
    assert len(drawn) == 1  # when the labels are there; the end is told by the comparison
    predicted = next(m for m in quality.map_layers() if "predicted" in m.name)
    assert np.isfinite(predicted.features["value"]).all()


def test_blink_swipe_and_side_by_side(load, file):
    quality = load(file)
    viewer, maps = quality.session.viewer, quality.map_layers()
    before = list(viewer.layers)
    other = viewer.add_points([[0.0, 0.0]], units=("um", "um"), axis_labels=("y", "x"))

    def visible():
        return [m.visible for m in maps]

    assert visible() == [True, False, False]
    quality.blink()
    assert visible() == [False, True, False] and quality.shown is MapKind.PREDICTED
    quality.set_swipe(True)
    assert visible() == [True, True, False]
    quality._map_layout.set_divider(700.0)
    assert (maps[0].shown == (quality.section.xy[:, 0] < 700)).all()
    assert (maps[1].shown == ~maps[0].shown).all() and 0 < maps[0].shown.sum() < SIDE**2
    quality.set_layout(MapLayout.SIDE_BY_SIDE)
    assert visible() == [True, True, True] and not other.visible and maps[0].shown.all()
    grid = viewer.canvas.grid
    cells = [[viewer.layers[i] for i in cell] for _, cell in grid.iter_viewboxes(viewer.layers)]
    assert [cell[-1] for cell in cells[1:]] == list(maps)
    assert all(cell[0].rgb for cell in cells)  # the slide under each
    quality.session.set_gene("KRT8")
    assert len(quality.session.slides) == 1  # its copies are no slides
    quality.blink()  # back on the slide
    assert not grid.enabled and list(viewer.layers) == [*before, other] and other.visible
    assert visible() == [True, False, False]


def test_clicking_a_spot_chooses_it_and_shows_both_values(load, file, panel: PredictWidget, qtbot):
    quality = load(file)
    row = 7
    x, y = quality.comparison.spots.xy[row] + 9
    world = (0.7 * y, 0.7 * x)
    assert quality.session.claimed(world) and not quality.session.claimed((5.0, 5.0))
    assert quality._spot_picker.spot_at(world) == row
    quality.choose_spot(row)
    rows = {gene: value for gene, value, _ in panel.spot_box.gene_bars.rows}
    measured = panel.spot_box.gene_bars.measured
    column = quality.comparison.panel.row("ERBB2")
    assert measured["ERBB2"] == pytest.approx(quality.comparison.measured[row, column])
    assert rows["ERBB2"] == pytest.approx(quality.comparison.predicted[row, column])
    assert "measured" in panel.spot_box.units_label.text()
    told = quality._spot_picker.told(row)
    assert "predicted" in told and f"{measured['ERBB2']:.2f}" in told
    panel.click_predictor.predict_at(*(quality.comparison.spots.xy[0] + PITCH / 2))
    qtbot.waitUntil(lambda: not panel.click_predictor.busy, timeout=60_000)
    assert quality.spot is None and not panel.spot_box.gene_bars.measured


def test_of_several_sections_that_of_the_open_slide_is_taken(
    load, file, tmp_path, tiny_slide_file, until
):
    folder = tmp_path / "study"
    other = tmp_path / "elsewhere.png"
    Image.fromarray(np.full((900, 900, 3), 220, np.uint8)).save(other)
    made_section(folder / "A1.h5ad", other)
    made_section(folder / "drawn.h5ad", tiny_slide_file)
    quality = load(folder)
    assert quality.section.name == "drawn"
    assert [c.name for c in quality.choices] == ["A1", "drawn"]
    first = quality.section
    quality.take(quality.choices[0])
    until(lambda: len(quality.sections) == 2 and not quality.busy)
    second = quality.section
    assert second.name == "A1" and second.slide is not first.slide
    # all slides lie at one place of the canvas: only the chosen section and its slide are shown
    assert second.slide.layer.visible and not first.slide.layer.visible
    assert not first.layer.visible
    quality.choose(first)
    assert first.slide.layer.visible and not second.slide.layer.visible
    assert not second.layer.visible and quality.session.slide is first.slide


def test_landmarks_lay_a_section_on_another_scan(
    panel: PredictWidget, quality: QualityController, tmp_path, tiny_slide_file, until
):
    """The section's own image is half as large, and its spots were placed on that."""
    small = tmp_path / "small.png"
    with open_slide(tiny_slide_file) as slide:
        Image.fromarray(slide.read_region(0, 0, 1600, 1600)).resize((800, 800)).save(small)
    quality.load([made_section(tmp_path / "D2.h5ad", small, scale=0.5)])
    until(lambda: not quality.busy)
    session = quality.session
    assert (
        len(session.slides) == 2
        and "own image, small.png, which was opened" in session.message.text
    )
    session.viewer_slides.set_current(session.slides[0])
    before = [*(slide.layer for slide in session.slides), quality.section.layer]
    quality.start_landmarks()
    landmarks = quality.landmarks
    assert "Point 1 of 3" in landmarks.instruction and session.is_click_claimed((5.0, 5.0))
    own = np.array([(100.0, 100), (700, 150), (300, 650), (600, 500)])

    def pair(place, miss=0.0):
        world = swap_xy(place * landmarks._source_um_per_px + landmarks._source_corner)
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
    section = quality.section
    assert section.registration == "by 3 landmarks" and section.slide is session.slides[0]
    layers = session.viewer.layers
    assert layers.index(section.layer) > layers.index(section.slide.layer)
    assert [slide.layer.visible for slide in session.slides] == [True, False]
    np.testing.assert_allclose(section.xy, 2 * section.source_xy, atol=1e-6)
    assert quality.comparison is not None
    assert all(layer in session.viewer.layers for layer in before)
    quality.start_landmarks()
    quality.end_landmarks()
    assert section.registration == "by 3 landmarks" and quality.comparison is not None


def test_spots_off_the_tissue_are_crossed_out_and_told(load, tmp_path):
    shifted = made_section(tmp_path / "D3.h5ad", None, shift=(-290, -290))
    quality = load(shifted)
    section = quality.section
    assert section.registration == BY_COORDINATES
    off = section.placement.off_tissue
    assert off.any() and not off.all()
    red = np.array([c == "x" for c in map(str, section.layer.symbol)])
    assert (red == off).all(), OFF_TISSUE_COLOR
    assert (
        f"{off.sum()}" in quality.session.message.text and "tissue" in quality.session.message.text
    )
    assert quality.session.message.is_warning


def test_coordinates_of_another_scale_are_recognised_by_the_array(load, tmp_path):
    quality = load(made_section(tmp_path / "D4.h5ad", None, scale=2.0))
    assert quality.section.registration == BY_ARRAY
    np.testing.assert_allclose(quality.section.xy, quality.section.source_xy / 2, rtol=1e-3)
    assert "2 times as large" in quality.session.message.text


def test_bad_sections_get_a_sentence_and_leave_nothing_behind(
    load, panel: PredictWidget, quality: QualityController, tmp_path, until
):
    session = panel.session
    bare = tmp_path / "bare.h5ad"
    anndata.AnnData(np.ones((4, 2), np.float32)).write_h5ad(bare)
    before = list(session.viewer.layers)
    session.viewer.open(bare, plugin="napari-dkan")
    until(lambda: not quality.busy and session.message.is_warning)
    assert "obsm['spatial']" in session.message.text
    assert list(session.viewer.layers) == before and not quality.sections

    load(made_section(tmp_path / "E1.h5ad", None, genes=("AAA", "BBB")), compared=False)
    assert "measures none of the checkpoint's" in session.message.text
    assert quality.comparison is None and quality.section.name == "E1"

    load(made_section(tmp_path / "E2.h5ad", None, shift=(5000, 0)), compared=False)
    assert "off the slide" in session.message.text and session.message.is_warning
    assert quality.section.placement.off_slide.all() and quality.comparison is None

    load(tmp_path / "gone.h5ad", compared=False)
    assert "does not exist" in session.message.text


def test_deleting_in_the_middle_ends_in_a_defined_state(
    load, file, quality: QualityController, until
):
    session, layers = quality.session, quality.session.viewer.layers
    quality.load([file])
    until(lambda: quality.pair is not None)
    layers.remove(quality.section.layer)
    assert quality.section is None and not quality.sections and not quality.busy
    until(lambda: len(layers) == 1)
    load(file)
    quality.set_layout(MapLayout.SIDE_BY_SIDE)
    section, slide = quality.section, session.slide
    path = slide.slide.path
    layers.remove(slide.layer)
    assert not quality.busy and quality.comparison is None and quality.section is section
    assert not session.viewer.canvas.grid.enabled and list(layers) == [section.layer]
    assert "was closed" in session.message.text
    session.viewer.open(path, plugin="napari-dkan")  # it finds its slide again
    until(lambda: quality.comparison is not None and not quality.busy)
    layers.remove(quality.map_layers()[1])  # one map goes: the rest stays
    assert len(quality.map_layers()) == 2 and quality.comparison is not None
    quality.show_map(MapKind.PREDICTED)  # asked for, it comes back
    assert [m.visible for m in quality.map_layers()] == [False, True, False]


def test_another_checkpoint_is_compared_anew(load, file, until):
    quality = load(file)
    session, before = quality.session, quality.comparison
    session.set_checkpoint(replace(session.checkpoint, sha256="another"))
    assert quality.comparison is None and quality.busy
    until(lambda: quality.comparison is not None and not quality.busy)
    np.testing.assert_allclose(quality.comparison.predicted, before.predicted, atol=1e-5)
