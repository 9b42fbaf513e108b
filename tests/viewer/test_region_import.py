"""Regions from QuPath, masks and Labels layers, in a real viewer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from napari.layers import Labels, Points, Shapes
from PIL import Image
from shapely.geometry import box

from napari_dkan.spatial.coordinates import swap_xy
from napari_dkan.viewer.jobs.target_from_layers import region_from_layer
from napari_dkan.viewer.plugin.file_readers import get_region_reader
from napari_dkan.viewer.session.viewer_settings import TargetMode

if TYPE_CHECKING:
    from napari_dkan.viewer.panels.predict.predict_widget import PredictWidget


MIDDLE = box(500, 500, 1100, 1100).difference(box(700, 700, 900, 900))


def ring(x0, y0, x1, y1):
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]


@pytest.fixture
def qupath_file(tmp_path):
    """A tumour with a hole, a nest of another class inside of it, a line and two points."""

    def feature(kind, coordinates, **about):
        shape = {"type": kind, "coordinates": coordinates}
        about = {"objectType": "annotation", **about}
        return {"type": "Feature", "geometry": shape, "properties": about}

    tumour = {"name": "Tumor", "color": [200, 0, 0]}
    polygon = [ring(500, 500, 1100, 1100), ring(700, 700, 900, 900)]
    path = tmp_path / "drawn.geojson"
    features = [
        feature("Polygon", polygon, name="A", classification=tumour),
        feature("Polygon", [ring(520, 520, 600, 600)], classification={"name": "Nest"}),
        feature("LineString", [[0, 0], [50, 90]]),
        feature("MultiPoint", [[600, 600], [900, 650]]),
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def wait_for_target(panel: PredictWidget, until):
    box = panel.target_box
    until(lambda: box.target is not None)
    return box.target


def test_dropped_geojson_is_the_target(panel: PredictWidget, until, qupath_file):
    viewer, session = panel.session.viewer, panel.session
    viewer.open(qupath_file, plugin="napari-dkan")
    until(lambda: any(isinstance(layer, Shapes) for layer in viewer.layers))
    layer = panel.target_box.regions_layer()
    assert layer.name == "drawn.geojson" and viewer.layers.selection.active is layer
    np.testing.assert_allclose(layer.scale, 0.7)
    assert list(layer.features["label"]) == ["A (Tumor)", "", "Nest", ""]
    np.testing.assert_allclose(layer.edge_color[0][:3], [200 / 255, 0, 0], atol=1e-3)
    assert any(isinstance(other, Points) and len(other.data) == 2 for other in viewer.layers)
    assert session.settings.target_mode is TargetMode.REGION
    region = region_from_layer(layer, session.slide)
    assert region.symmetric_difference(MIDDLE).area < 1e-3  # the nest is no hole
    target = wait_for_target(panel, until)
    # what is drawn inside of it by hand is one
    layer.add_polygons([swap_xy(np.array(ring(920, 920, 1080, 1080)[:-1], float))])
    assert region_from_layer(layer, session.slide).area == pytest.approx(MIDDLE.area - 160**2)
    panel.target_box.update_plan()
    assert len(panel.target_box.target) <= len(target)


def test_mask_file_and_labels_layer_give_the_same_region(panel: PredictWidget, until, tmp_path):
    session, viewer = panel.session, panel.session.viewer
    mask = np.zeros((100, 100), np.uint8)  # a sixteenth of the slide
    mask[30:70, 30:70] = 1
    mask[45:55, 45:55] = 0
    wanted = box(480, 480, 1120, 1120).difference(box(720, 720, 880, 880))
    Image.fromarray(mask).save(tmp_path / "mask.png")
    panel.target_box.region_row.import_file(tmp_path / "mask.png")
    until(lambda: panel.target_box.regions_layer() is not None)
    drawn = panel.target_box.regions_layer()
    assert region_from_layer(drawn, session.slide).symmetric_difference(wanted).area < 1e-3
    from_file = wait_for_target(panel, until)

    layer = viewer.add_labels(mask.astype(int))  # as napari opens it, in pixels
    assert panel.target_box.regions_layer() is layer
    panel.target_box.target = None
    until(lambda: panel.target_box.target is not None)
    np.testing.assert_allclose(layer.scale, 16 * 0.7)
    found = region_from_layer(layer, session.slide)
    # napari shows a pixel around its middle, so half of a level-0 px is free
    assert found.symmetric_difference(wanted).area < 0.02 * wanted.area
    assert panel.target_box.target.spots.names == from_file.spots.names
    layer.data_setitem((np.arange(100), np.full(100, 5)), 3)
    until(lambda: region_from_layer(layer, session.slide).area > 1.05 * wanted.area)
    layer.data = np.zeros_like(layer.data)
    until(lambda: "Nothing is painted" in panel.target_box.plan_label.text())


def test_failed_import_shows_a_message(panel: PredictWidget, until, tmp_path):
    far = {"type": "Polygon", "coordinates": [ring(90_000, 0, 91_000, 900)]}
    cases = {"bad.geojson": "{", "far.geojson": json.dumps(far)}
    for name, text in cases.items():
        (tmp_path / name).write_text(text)
        panel.session.viewer.open(tmp_path / name, plugin="napari-dkan")
        until(
            lambda name=name: (
                name in panel.message_label.text() and panel.session.message.is_warning
            )
        )
    assert "outside the slide" in panel.message_label.text()
    assert not any(isinstance(x, Shapes | Labels) for x in panel.session.viewer.layers)
    assert get_region_reader(str(tmp_path / "other.json")) is None


def test_regions_imported_before_their_slide(
    make_napari_viewer, qupath_file, tiny_slide_file, until
):
    from napari_dkan.viewer.session.viewer_session import get_session

    viewer = make_napari_viewer()
    viewer.open(qupath_file, plugin="napari-dkan")
    until(lambda: len(viewer.layers) == 2)
    np.testing.assert_allclose(viewer.layers[0].scale, 1)
    viewer.open(tiny_slide_file, plugin="napari-dkan")
    np.testing.assert_allclose(viewer.layers[0].scale, 0.7)
    slide = get_session(viewer).slide
    assert region_from_layer(viewer.layers[0], slide).area == pytest.approx(MIDDLE.area)


def test_dropped_feature_file_replaces_encoding(panel: PredictWidget, until, tmp_path):
    import h5py

    from napari_dkan.inference.patch_features.patch_geometry import keys_from_centers
    from napari_dkan.inference.predict import predict
    from napari_dkan.inference.predictor import Predictor
    from napari_dkan.inference.target import target_from_region

    session, slide = panel.session, panel.session.slide
    direct = Predictor(slide.slide, session.checkpoint, slide.mpp, slide.tissue, "cpu")
    target = target_from_region(slide.tissue, 112.0, 0.7, 1600, 1600, slide.tissue)
    wanted = predict(direct, target)
    features = direct.feature_cache.get_features(keys_from_centers(target.spots.xy))[0].numpy()

    def write(name, folder):
        with h5py.File(tmp_path / name, "w") as file:
            coords = file.create_dataset("coords", data=(target.spots.xy - 80).astype(int))
            coords.attrs.update({"patch_size": 160, "patch_size_level0": 160})
            file.create_dataset("features", data=features).attrs["savetodir"] = folder
        return tmp_path / name

    session.viewer.open(write("uni.h5", "features_uni_v1"), plugin="napari-dkan")
    until(lambda: "the checkpoint needs those of stain-stats" in panel.message_label.text())
    session.viewer.open(write("drawn.h5", "features_stain-stats"), plugin="napari-dkan")
    assert panel.advanced["features"].value.name == "drawn.h5"
    session.change_settings(target_mode=TargetMode.TISSUE)
    until(lambda: not panel.prefetcher.busy and panel.target_box.target is not None)
    panel.target_box.start_prediction()
    until(lambda: not panel.prediction_jobs.busy and len(session.overlays) == 1)
    made = session.overlays[0].prediction
    assert made.target.spots.names == target.spots.names and made.predicted_mask.all()
    gene = made.get_gene_values(session.gene)
    np.testing.assert_allclose(gene, wanted.get_gene_values(session.gene), atol=1e-5)
    assert made.provenance["features"]["file"] == "drawn.h5"
    session.use_feature_file(None)
    until(
        lambda: (
            not panel.prefetcher.busy and session.predictors.current.precomputed_features is None
        )
    )
