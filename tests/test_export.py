"""Exports: values, coordinates, provenance and validity for the programs that read them."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import UUID

import anndata
import numpy as np
import pandas as pd
import pytest
import shapely
from shapely.geometry import shape

from napari_dkan.atomic_write import atomic_write_folder
from napari_dkan.cli import main
from napari_dkan.errors import OutputError, SpotsError
from napari_dkan.export.export_formats import EXPORT_FORMATS, write_csv, write_result
from napari_dkan.export.geojson_export import write_geojson
from napari_dkan.export.ome_zarr_export import write_ome_zarr
from napari_dkan.export.result_reader import load_result
from napari_dkan.export.saved_result import save_result
from napari_dkan.export.spatialdata_export import write_spatialdata
from napari_dkan.expression.readers.layouts.spatialdata_sections import (
    apply_transform,
    transforms_to_systems,
)
from napari_dkan.expression.tables.table_files import read_table
from napari_dkan.spatial.region_files import read_regions

from .result_files import MPP, RECORD, grid_target, result, spots_target

if TYPE_CHECKING:
    from napari_dkan.export.saved_result import SavedResult


@pytest.fixture
def saved():
    return result()


def assert_provenance(provenance, genes=("ERBB2", "CD74")):
    assert {k: provenance[k] for k in RECORD if k != "nothing"} == {
        k: v for k, v in RECORD.items() if k != "nothing"
    }
    assert provenance["genes"] == list(genes) and "not measured" in provenance["about"]
    assert (
        provenance["slide_record"]["fingerprint"] == "f" * 64
        and provenance["versions"]["napari-dkan"]
    )


# ---- table -----------------------------------------------------------------------------


def test_csv_has_all_digits_and_provenance(saved: SavedResult, tmp_path):
    file = write_csv(tmp_path / "out.csv", saved)
    table = pd.read_csv(file, dtype={"ERBB2": np.float32, "CD74": np.float32})
    values = table[["ERBB2", "CD74"]].to_numpy()
    np.testing.assert_array_equal(values, saved.prediction.values)
    spots = saved.prediction.target.spots
    np.testing.assert_array_equal(table[["x_px", "y_px"]], spots.xy)
    np.testing.assert_allclose(table[["x_um", "y_um"]], spots.xy * MPP)
    np.testing.assert_array_equal(table[["array_col", "array_row"]], spots.array_coords)
    assert tuple(table["spot"]) == spots.names
    assert table["reliability_reasons"][0] == "out of focus; little tissue"
    assert table["unreliable"].tolist() == saved.reliability.unreliable.tolist()
    assert set(table["predicted_by"]) == {"napari-dkan 0.1.0 Made up " + ("ab" * 6)}
    assert_provenance(json.loads((tmp_path / "out.csv.json").read_text()))
    minimal = result(spots_target(3), reliability=None)
    table = pd.read_csv(write_csv(tmp_path / "bare.csv", minimal, ["her2"]))
    assert list(table) == ["spot", "x_px", "y_px", "x_um", "y_um", "predicted_by", "ERBB2"]
    assert_provenance(json.loads((tmp_path / "bare.csv.json").read_text()), ["ERBB2"])


# ---- QuPath ------------------------------------------------------------------------------


def assert_valid_for_qupath(feature):
    """Assert what QuPath 0.4 to 0.6 requires; it rejects or ignores anything else."""
    assert set(feature) == {"type", "id", "geometry", "properties"}
    assert feature["type"] == "Feature" and str(UUID(feature["id"])) == feature["id"]
    geometry = shape(feature["geometry"])
    assert geometry.is_valid and not geometry.is_empty
    content = feature["properties"]
    assert content["objectType"] in ("annotation", "detection", "tile", "cell")
    kind = content["classification"]  # QuPath requires a name and a color
    assert set(kind) == {"name", "color"} and isinstance(kind["name"], str)
    assert len(kind["color"]) == 3 and all(0 <= c <= 255 for c in kind["color"])
    numbers = content.get("measurements", {})
    assert all(isinstance(n, str) and np.isfinite(v) for n, v in numbers.items())
    assert all(isinstance(v, str) for v in content.get("metadata", {}).values())
    assert isinstance(content["name"], str) and content.get("isLocked", True) is True


def read_strict_json(file):
    def reject_constant(constant):
        raise ValueError(constant)  # NaN is not JSON

    content = json.loads(file.read_text(encoding="utf-8"), parse_constant=reject_constant)
    assert content["type"] == "FeatureCollection"
    for feature in content["features"]:
        assert_valid_for_qupath(feature)
    return content


def test_geojson_has_tiles_of_a_grid(saved: SavedResult, tmp_path):
    file = write_geojson(tmp_path / "out.geojson", saved)
    content = read_strict_json(file)
    assert_provenance(content["napari_dkan"])
    region, *tiles = content["features"]
    assert region["properties"]["objectType"] == "annotation" and region["properties"]["isLocked"]
    assert region["properties"]["metadata"]["checkpoint_sha256"] == "ab" * 32
    assert shape(region["geometry"]).symmetric_difference(saved.regions).area < 5  # two decimals
    predicted_rows = np.flatnonzero(saved.prediction.predicted_mask)
    assert len(tiles) == len(predicted_rows) == 10
    for row, tile in zip(predicted_rows, tiles, strict=True):
        content = tile["properties"]
        assert content["objectType"] == "tile"
        assert content["name"] == saved.prediction.target.spots.names[row]
        square = shape(tile["geometry"])
        centre = np.array(square.centroid.coords[0])
        np.testing.assert_allclose(centre, saved.prediction.target.spots.xy[row], atol=0.01)
        assert square.area == pytest.approx((140 / MPP) ** 2, rel=1e-3)
        measurements = content["measurements"]
        assert measurements["ERBB2 predicted"] == pytest.approx(
            saved.prediction.values[row, 0], abs=1e-5
        )
        unreliable = content["classification"]["name"] == "Unreliable prediction"
        assert unreliable == saved.reliability.unreliable[row]
    assert tiles[0]["properties"]["metadata"]["reliability"] == "out of focus; little tissue"
    ids = [f["id"] for f in (region, *tiles)]
    assert len(set(ids)) == len(ids)
    assert file.read_text() == write_geojson(tmp_path / "twin.geojson", saved).read_text()
    regions_read = read_regions(file)  # regions can be imported again
    assert regions_read.area > 0.9 * saved.regions.area


def test_geojson_has_detections_of_spots_and_marks_zero_shot_genes(tmp_path):
    unmarked = result(spots_target(4), regions=None, reliability=None)
    zero_shot = replace(
        unmarked, prediction=replace(unmarked.prediction, zero_shot_symbols=("CD74",))
    )
    content = read_strict_json(write_geojson(tmp_path / "s.geojson", zero_shot))
    assert content["napari_dkan"]["zero_shot_genes"] == ["CD74"]
    for feature in content["features"]:
        assert feature["properties"]["objectType"] == "detection"
        assert set(feature["properties"]["measurements"]) == {
            "ERBB2 predicted",
            "CD74 predicted zero-shot",
        }
        assert feature["geometry"]["isEllipse"] is True
        x0, _, x1, _ = shape(feature["geometry"]).bounds
        assert x1 - x0 == pytest.approx(100 / MPP, abs=0.02)


# ---- OME-Zarr ----------------------------------------------------------------------------


def test_ome_zarr_is_aligned_with_its_tiles(saved: SavedResult, tmp_path):
    import zarr

    group = zarr.open_group(write_ome_zarr(tmp_path / "h.ome.zarr", saved), mode="r", zarr_format=2)
    values, (image,) = group["0"][:], group.attrs["multiscales"]
    assert values.dtype == np.float32 and values.shape == (2, 3, 4)
    assert image["version"] == "0.4" and [a["name"] for a in image["axes"]] == ["c", "y", "x"]
    assert {a.get("unit") for a in image["axes"][1:]} == {"micrometer"}
    scale, shift = image["datasets"][0]["coordinateTransformations"]
    grid, cells = saved.prediction.target.grid, saved.prediction.target.grid.cells
    for row, (column, line) in enumerate(cells - grid.first_cell):
        np.testing.assert_array_equal(values[:, line, column], saved.prediction.values[row])
        position = np.array([column, line]) * scale["scale"][:0:-1] + shift["translation"][:0:-1]
        # 0 um is the center of the first pixel, half a pixel from its corner.
        np.testing.assert_allclose(position, (grid.centres[row] - 0.5) * MPP)
    assert np.isnan(values[:, 0, 0]).all()  # the missing cell is empty, not zero
    first, second = group.attrs["omero"]["channels"]
    assert (first["label"], first["active"], second["active"]) == ("ERBB2 predicted", True, False)
    finite = values[0][np.isfinite(values[0])].astype(float)
    low, high = np.percentile(finite, [2, 98])
    assert first["window"]["start"] == pytest.approx(low)
    assert first["window"]["end"] == pytest.approx(high)
    assert_provenance(group.attrs["napari_dkan"])


def test_ome_zarr_has_discs_of_free_spots(tmp_path):
    import zarr

    saved = result(spots_target(5))
    group = zarr.open_group(write_ome_zarr(tmp_path / "d.ome.zarr", saved, ["CD74"]), mode="r")
    values, image = group["0"][0], group.attrs["multiscales"][0]
    scale, shift = image["datasets"][0]["coordinateTransformations"]
    spots, predicted_rows = saved.prediction.target.spots.xy, saved.prediction.predicted_mask
    for (x, y), value, known in zip(
        spots, saved.prediction.values[:, 1], predicted_rows, strict=True
    ):
        column, line = (
            round(((position - 0.5) * MPP - shift["translation"][i]) / scale["scale"][i])
            for position, i in ((x, 2), (y, 1))
        )
        assert values[line, column] == value if known else np.isnan(values[line, column])
    area = np.isfinite(values).sum() * scale["scale"][1] ** 2
    assert area == pytest.approx(predicted_rows.sum() * np.pi * 50**2, rel=0.2)


# ---- SpatialData -------------------------------------------------------------------------


@pytest.mark.parametrize("target", [grid_target(), spots_target(5)], ids=["grid", "spots"])
def test_spatialdata_store_has_shapes_table_and_image(target, tmp_path):
    import zarr

    saved = result(target)
    store = write_spatialdata(tmp_path / "s.spatialdata.zarr", saved)
    root = zarr.open_group(store, mode="r", zarr_format=3)
    assert root.attrs["spatialdata_attrs"]["version"] == "0.2"
    assert_provenance(root.attrs["napari_dkan"])
    table = anndata.io.read_zarr(store / "tables" / "table")
    np.testing.assert_array_equal(table.X, saved.prediction.values)
    assert json.loads(table.uns["napari_dkan"]["saved"])["card"] == dict(saved.card)
    content = dict(root["tables/table"].attrs)
    assert (content["region"], content["region_key"]) == ("tiles", "region")
    shapes = read_table(store / "shapes" / "tiles" / "shapes.parquet")
    assert list(shapes.index) == list(table.obs[content["instance_key"]])
    geometries = shapely.from_wkb(shapes["geometry"].to_numpy())
    centres = np.array([g.centroid.coords[0] for g in geometries])
    shape_attributes, image_attributes = (
        dict(root["shapes/tiles"].attrs),
        dict(root["images/slide"].attrs),
    )
    to_system = transforms_to_systems(shape_attributes["coordinateTransformations"], ["x", "y"])
    np.testing.assert_allclose(
        apply_transform(to_system["global"], centres), target.spots.xy, atol=1e-9
    )
    np.testing.assert_allclose(apply_transform(to_system["um"], centres), target.spots.xy * MPP)
    if target.grid is None:
        assert shapes["radius"].unique() == pytest.approx([50 / MPP])
    (image,) = image_attributes["ome"]["multiscales"]
    from_image = transforms_to_systems(image["coordinateTransformations"], ["c", "y", "x"])
    corner = apply_transform(from_image["global"], np.array([[80.0, 60.0]]))
    np.testing.assert_allclose(corner, [[1600, 1200]])
    np.testing.assert_array_equal(root["images/slide/s0"][:].transpose(1, 2, 0), saved.overview.rgb)
    assert image_attributes["napari_dkan"]["slide"]["path"] == "/slides/drawn.ome.tif"
    regions = read_table(store / "shapes" / "regions" / "shapes.parquet")["geometry"]
    assert shapely.from_wkb(regions.iloc[0]).equals_exact(saved.regions, 0)


def test_spatialdata_library_reads_the_store(saved: SavedResult, tmp_path):
    spatialdata = pytest.importorskip("spatialdata", reason="spatialdata is not installed")
    store = spatialdata.read_zarr(write_spatialdata(tmp_path / "s.zarr", saved))
    np.testing.assert_array_equal(store.tables["table"].X, saved.prediction.values)
    assert set(store.shapes) == {"tiles", "regions"} and set(store.images) == {"slide"}


# ---- AnnData ------------------------------------------------------------------------------


def test_scanpy_plots_a_saved_result(saved: SavedResult, tmp_path):
    import matplotlib
    import scanpy

    matplotlib.use("Agg")
    from matplotlib import pyplot

    data = scanpy.read_h5ad(save_result(tmp_path / "out.h5ad", saved))
    axes = scanpy.pl.embedding(data, "spatial", color=["ERBB2", "unreliable"], show=False)
    assert len(axes) == 2
    with pytest.warns(FutureWarning, match="squidpy"):  # scanpy's own advice
        (axis,) = scanpy.pl.spatial(data, color="ERBB2", show=False)
    assert axis.images[0].get_array().shape[:2] == saved.overview.rgb.shape[:2]
    pyplot.close("all")


# ---- writing ---------------------------------------------------------------------------------


def test_folder_is_written_atomically(tmp_path):
    new = tmp_path / "deep" / "new.zarr"
    with atomic_write_folder(new) as folder:
        (folder / "part").write_text("x")
        assert not new.exists()
    assert (new / "part").read_text() == "x" and len(list(new.parent.iterdir())) == 1
    if os.name == "posix":
        assert new.stat().st_mode & 0o077 == 0o777 & ~umask() & 0o077
    with pytest.raises(OutputError, match=r"new\.zarr exists already; choose a new name"):
        atomic_write_folder(new).__enter__()
    with (
        pytest.raises(OutputError, match="appeared exists already"),
        atomic_write_folder(tmp_path / "appeared"),
    ):
        (tmp_path / "appeared").mkdir()
    with pytest.raises(OutputError, match="No space left"), atomic_write_folder(tmp_path / "full"):
        raise OSError(28, "No space left on device")
    with pytest.raises(KeyError), atomic_write_folder(tmp_path / "broken"):
        raise KeyError
    assert {p.name for p in tmp_path.iterdir()} == {"deep", "appeared"}
    assert (new / "part").read_text() == "x"


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.fixture
def run(monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["napari-dkan", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            main()
        return exit.value.code or 0, capsys.readouterr()

    return call


def test_command_line_writes_every_format(run, saved: SavedResult, tmp_path):
    file = save_result(tmp_path / "in.h5ad", saved)
    out = [tmp_path / f"out{kind.suffix}" for kind in EXPORT_FORMATS]
    outs = [word for path in out for word in ("-o", path)]
    code, captured = run("export", file, *outs, "--genes", "her2")
    assert code == 0 and all(path.exists() and str(path) in captured.out for path in out)
    assert load_result(out[0]).prediction.panel == saved.prediction.panel
    assert "CD74" not in pd.read_csv(tmp_path / "out.csv")
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    for arguments, sentence in (
        (["-o", tmp_path / "out.ome.zarr"], "exists already"),
        (["-o", tmp_path / "new.csv", "-o", tmp_path / "new.doc"], "new.doc does not say what"),
        (["-o", tmp_path / "new.csv", "--genes", "HER2,XYZ"], "XYZ is not among"),
        (["-o", tmp_path / "new.csv", "--genes", " ,"], "names no gene"),
    ):
        code, captured = run("export", file, *arguments)
        assert code == 2 and sentence in captured.err and captured.err.count("\n") == 1
    code, captured = run("export", tmp_path / "out.csv", "-o", tmp_path / "new.csv")
    assert code == 2 and "out.csv is not opened" in captured.err
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


def test_failed_write_leaves_nothing(saved: SavedResult, tmp_path, monkeypatch):
    for kind in EXPORT_FORMATS:
        path = tmp_path / f"out{kind.suffix}"
        with (
            pytest.raises(SpotsError, match="XYZ is not among")
            if kind.suffix != ".h5ad"
            else (pytest.raises(OutputError, match="nothing is predicted"))
        ):
            write_result(path, saved if kind.suffix != ".h5ad" else _without_spots(saved), ["XYZ"])
    assert not list(tmp_path.iterdir())


def _without_spots(saved):
    return replace(saved, prediction=saved.prediction.take(np.zeros(11, bool)))
