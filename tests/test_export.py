"""What leaves says what it is, lies where it belongs, and is read by those it is meant for."""

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
from napari_dkan.export.csv_export import write_csv
from napari_dkan.export.export_formats import EXPORT_FORMATS, write_result
from napari_dkan.export.geojson_export import write_geojson
from napari_dkan.export.ome_zarr_export import write_ome_zarr
from napari_dkan.export.result_reader import load_result
from napari_dkan.export.saved_result import save_result
from napari_dkan.export.spatialdata_export import write_spatialdata
from napari_dkan.expression.readers.spatialdata_sections import (
    apply_transform,
    transforms_to_systems,
)
from napari_dkan.expression.readers.table_files import read_table
from napari_dkan.spatial.region_files import read_geojson

from .result_files import MPP, RECORD, grid_target, result, spots_target

if TYPE_CHECKING:
    from napari_dkan.export.saved_result import SavedResult


@pytest.fixture
def ours():
    return result()


def require_account(told, genes=("ERBB2", "CD74")):
    assert {k: told[k] for k in RECORD if k != "nothing"} == {
        k: v for k, v in RECORD.items() if k != "nothing"
    }
    assert told["genes"] == list(genes) and "not measured" in told["about"]
    assert told["slide_record"]["fingerprint"] == "f" * 64 and told["versions"]["napari-dkan"]


# ---- table -----------------------------------------------------------------------------


def test_a_table_has_all_digits_and_says_what_it_is(ours: SavedResult, tmp_path):
    file = write_csv(tmp_path / "out.csv", ours)
    table = pd.read_csv(file, dtype={"ERBB2": np.float32, "CD74": np.float32})
    values = table[["ERBB2", "CD74"]].to_numpy()
    np.testing.assert_array_equal(values, ours.prediction.values)
    spots = ours.prediction.target.spots
    np.testing.assert_array_equal(table[["x_px", "y_px"]], spots.xy)
    np.testing.assert_allclose(table[["x_um", "y_um"]], spots.xy * MPP)
    np.testing.assert_array_equal(table[["array_col", "array_row"]], spots.array)
    assert tuple(table["spot"]) == spots.names
    assert table["reliability_reasons"][0] == "out of focus; little tissue"
    assert table["unreliable"].tolist() == ours.reliability.unreliable.tolist()
    assert set(table["predicted_by"]) == {"napari-dkan 0.1.0 Made up " + ("ab" * 6)}
    require_account(json.loads((tmp_path / "out.csv.json").read_text()))
    bare = result(spots_target(3), reliability=None)
    table = pd.read_csv(write_csv(tmp_path / "bare.csv", bare, ["her2"]))
    assert list(table) == ["spot", "x_px", "y_px", "x_um", "y_um", "predicted_by", "ERBB2"]
    require_account(json.loads((tmp_path / "bare.csv.json").read_text()), ["ERBB2"])


# ---- QuPath ------------------------------------------------------------------------------


def require_qupath(feature):
    """What QuPath 0.4 to 0.6 asks of a feature; it refuses or silently drops anything else."""
    assert set(feature) == {"type", "id", "geometry", "properties"}
    assert feature["type"] == "Feature" and str(UUID(feature["id"])) == feature["id"]
    geometry = shape(feature["geometry"])
    assert geometry.is_valid and not geometry.is_empty
    told = feature["properties"]
    assert told["objectType"] in ("annotation", "detection", "tile", "cell")
    kind = told["classification"]  # a name without a colour is an error there
    assert set(kind) == {"name", "color"} and isinstance(kind["name"], str)
    assert len(kind["color"]) == 3 and all(0 <= c <= 255 for c in kind["color"])
    numbers = told.get("measurements", {})
    assert all(isinstance(n, str) and np.isfinite(v) for n, v in numbers.items())
    assert all(isinstance(v, str) for v in told.get("metadata", {}).values())
    assert isinstance(told["name"], str) and told.get("isLocked", True) is True


def read_strictly(file):
    def never(constant):
        raise ValueError(constant)  # NaN is no JSON

    told = json.loads(file.read_text(encoding="utf-8"), parse_constant=never)
    assert told["type"] == "FeatureCollection"
    for feature in told["features"]:
        require_qupath(feature)
    return told


def test_a_grid_becomes_tiles_for_qupath(ours: SavedResult, tmp_path):
    file = write_geojson(tmp_path / "out.geojson", ours)
    told = read_strictly(file)
    require_account(told["napari_dkan"])
    region, *tiles = told["features"]
    assert region["properties"]["objectType"] == "annotation" and region["properties"]["isLocked"]
    assert region["properties"]["metadata"]["checkpoint_sha256"] == "ab" * 32
    assert shape(region["geometry"]).symmetric_difference(ours.regions).area < 5  # two decimals
    done = np.flatnonzero(ours.prediction.predicted_mask)
    assert len(tiles) == len(done) == 10
    for row, tile in zip(done, tiles, strict=True):
        told = tile["properties"]
        assert told["objectType"] == "tile"
        assert told["name"] == ours.prediction.target.spots.names[row]
        square = shape(tile["geometry"])
        centre = np.array(square.centroid.coords[0])
        np.testing.assert_allclose(centre, ours.prediction.target.spots.xy[row], atol=0.01)
        assert square.area == pytest.approx((140 / MPP) ** 2, rel=1e-3)
        found = told["measurements"]
        assert found["ERBB2 predicted"] == pytest.approx(ours.prediction.values[row, 0], abs=1e-5)
        unreliable = told["classification"]["name"] == "Unreliable prediction"
        assert unreliable == ours.reliability.unreliable[row]
    assert tiles[0]["properties"]["metadata"]["reliability"] == "out of focus; little tissue"
    ids = [f["id"] for f in (region, *tiles)]
    assert len(set(ids)) == len(ids)
    assert file.read_text() == write_geojson(tmp_path / "twin.geojson", ours).read_text()
    whole = read_geojson(file)  # our own reader of regions takes it too
    assert whole.area > 0.9 * ours.regions.area


def test_spots_become_detections_and_a_zero_shot_gene_says_so(tmp_path):
    plain = result(spots_target(4), regions=None, reliability=None)
    zero = replace(plain, prediction=replace(plain.prediction, zero_shot_symbols=("CD74",)))
    told = read_strictly(write_geojson(tmp_path / "s.geojson", zero))
    assert told["napari_dkan"]["zero_shot_genes"] == ["CD74"]
    for feature in told["features"]:
        assert feature["properties"]["objectType"] == "detection"
        assert set(feature["properties"]["measurements"]) == {
            "ERBB2 predicted",
            "CD74 predicted zero-shot",
        }
        assert feature["geometry"]["isEllipse"] is True
        x0, _, x1, _ = shape(feature["geometry"]).bounds
        assert x1 - x0 == pytest.approx(100 / MPP, abs=0.02)


# ---- OME-Zarr ----------------------------------------------------------------------------


def test_a_heatmap_lies_where_its_tiles_lie(ours: SavedResult, tmp_path):
    import zarr

    group = zarr.open_group(write_ome_zarr(tmp_path / "h.ome.zarr", ours), mode="r", zarr_format=2)
    values, (image,) = group["0"][:], group.attrs["multiscales"]
    assert values.dtype == np.float32 and values.shape == (2, 3, 4)
    assert image["version"] == "0.4" and [a["name"] for a in image["axes"]] == ["c", "y", "x"]
    assert {a.get("unit") for a in image["axes"][1:]} == {"micrometer"}
    scale, shift = image["datasets"][0]["coordinateTransformations"]
    grid, cells = ours.prediction.target.grid, ours.prediction.target.grid.cells
    for row, (column, line) in enumerate(cells - grid.first_cell):
        np.testing.assert_array_equal(values[:, line, column], ours.prediction.values[row])
        at = np.array([column, line]) * scale["scale"][:0:-1] + shift["translation"][:0:-1]
        # a pixel's centre lies half a px from its corner, and 0 um is the first pixel's centre
        np.testing.assert_allclose(at, (grid.centres[row] - 0.5) * MPP)
    assert np.isnan(values[:, 0, 0]).all()  # the missing cell is empty, not zero
    first, second = group.attrs["omero"]["channels"]
    assert (first["label"], first["active"], second["active"]) == ("ERBB2 predicted", True, False)
    finite = values[0][np.isfinite(values[0])].astype(float)
    low, high = np.percentile(finite, [2, 98])
    assert first["window"]["start"] == pytest.approx(low)
    assert first["window"]["end"] == pytest.approx(high)
    require_account(group.attrs["napari_dkan"])


def test_free_spots_become_discs(tmp_path):
    import zarr

    ours = result(spots_target(5))
    group = zarr.open_group(write_ome_zarr(tmp_path / "d.ome.zarr", ours, ["CD74"]), mode="r")
    values, image = group["0"][0], group.attrs["multiscales"][0]
    scale, shift = image["datasets"][0]["coordinateTransformations"]
    spots, done = ours.prediction.target.spots.xy, ours.prediction.predicted_mask
    for (x, y), value, known in zip(spots, ours.prediction.values[:, 1], done, strict=True):
        column, line = (
            round(((at - 0.5) * MPP - shift["translation"][i]) / scale["scale"][i])
            for at, i in ((x, 2), (y, 1))
        )
        assert values[line, column] == value if known else np.isnan(values[line, column])
    area = np.isfinite(values).sum() * scale["scale"][1] ** 2
    assert area == pytest.approx(done.sum() * np.pi * 50**2, rel=0.2)


# ---- SpatialData -------------------------------------------------------------------------


@pytest.mark.parametrize("target", [grid_target(), spots_target(5)], ids=["grid", "spots"])
def test_a_spatialdata_store_has_shapes_table_and_picture(target, tmp_path):
    import zarr

    ours = result(target)
    store = write_spatialdata(tmp_path / "s.spatialdata.zarr", ours)
    root = zarr.open_group(store, mode="r", zarr_format=3)
    assert root.attrs["spatialdata_attrs"]["version"] == "0.2"
    require_account(root.attrs["napari_dkan"])
    table = anndata.io.read_zarr(store / "tables" / "table")
    np.testing.assert_array_equal(table.X, ours.prediction.values)
    assert json.loads(table.uns["napari_dkan"]["saved"])["card"] == dict(ours.card)
    told = dict(root["tables/table"].attrs)
    assert (told["region"], told["region_key"]) == ("tiles", "region")
    shapes = read_table(store / "shapes" / "tiles" / "shapes.parquet")
    assert list(shapes.index) == list(table.obs[told["instance_key"]])
    own = shapely.from_wkb(shapes["geometry"].to_numpy())
    centres = np.array([g.centroid.coords[0] for g in own])
    described, picture = dict(root["shapes/tiles"].attrs), dict(root["images/slide"].attrs)
    to = transforms_to_systems(described["coordinateTransformations"], ["x", "y"])
    np.testing.assert_allclose(apply_transform(to["global"], centres), target.spots.xy, atol=1e-9)
    np.testing.assert_allclose(apply_transform(to["um"], centres), target.spots.xy * MPP)
    if target.grid is None:
        assert shapes["radius"].unique() == pytest.approx([50 / MPP])
    (image,) = picture["ome"]["multiscales"]
    from_image = transforms_to_systems(image["coordinateTransformations"], ["c", "y", "x"])
    corner = apply_transform(
        from_image["global"], np.array([[80.0, 60.0]])
    )  # its far end is the slide's
    np.testing.assert_allclose(corner, [[1600, 1200]])
    np.testing.assert_array_equal(root["images/slide/s0"][:].transpose(1, 2, 0), ours.overview.rgb)
    assert picture["napari_dkan"]["slide"]["path"] == "/slides/drawn.ome.tif"
    drawn = read_table(store / "shapes" / "regions" / "shapes.parquet")["geometry"]
    assert shapely.from_wkb(drawn.iloc[0]).equals_exact(ours.regions, 0)


def test_the_spatialdata_library_reads_the_store(ours: SavedResult, tmp_path):
    spatialdata = pytest.importorskip("spatialdata", reason="spatialdata is not installed")
    store = spatialdata.read_zarr(write_spatialdata(tmp_path / "s.zarr", ours))
    np.testing.assert_array_equal(store.tables["table"].X, ours.prediction.values)
    assert set(store.shapes) == {"tiles", "regions"} and set(store.images) == {"slide"}


# ---- AnnData in other hands ----------------------------------------------------------------


def test_scanpy_plots_a_saved_result_as_it_is(ours: SavedResult, tmp_path):
    import matplotlib
    import scanpy

    matplotlib.use("Agg")
    from matplotlib import pyplot

    data = scanpy.read_h5ad(save_result(tmp_path / "out.h5ad", ours))
    axes = scanpy.pl.embedding(data, "spatial", color=["ERBB2", "unreliable"], show=False)
    assert len(axes) == 2
    with pytest.warns(FutureWarning, match="squidpy"):  # scanpy's own advice
        (axis,) = scanpy.pl.spatial(data, color="ERBB2", show=False)
    assert axis.images[0].get_array().shape[:2] == ours.overview.rgb.shape[:2]
    pyplot.close("all")


# ---- writing ---------------------------------------------------------------------------------


def test_a_folder_is_whole_or_not_there(tmp_path):
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


def test_the_command_line_writes_every_kind(run, ours: SavedResult, tmp_path):
    file = save_result(tmp_path / "in.h5ad", ours)
    out = [tmp_path / f"out{kind.suffix}" for kind in EXPORT_FORMATS]
    outs = [word for path in out for word in ("-o", path)]
    code, said = run("export", file, *outs, "--genes", "her2")
    assert code == 0 and all(path.exists() and str(path) in said.out for path in out)
    assert load_result(out[0]).prediction.panel == ours.prediction.panel
    assert "CD74" not in pd.read_csv(tmp_path / "out.csv")
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    for arguments, sentence in (
        (["-o", tmp_path / "out.ome.zarr"], "exists already"),
        (["-o", tmp_path / "new.csv", "-o", tmp_path / "new.doc"], "new.doc does not say what"),
        (["-o", tmp_path / "new.csv", "--genes", "HER2,XYZ"], "XYZ is not among"),
        (["-o", tmp_path / "new.csv", "--genes", " ,"], "names no gene"),
    ):
        code, said = run("export", file, *arguments)
        assert code == 2 and sentence in said.err and said.err.count("\n") == 1
    code, said = run("export", tmp_path / "out.csv", "-o", tmp_path / "new.csv")
    assert code == 2 and "out.csv is not opened" in said.err
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


def test_a_failed_write_leaves_what_was_there(ours: SavedResult, tmp_path, monkeypatch):
    for kind in EXPORT_FORMATS:
        path = tmp_path / f"out{kind.suffix}"
        with (
            pytest.raises(SpotsError, match="XYZ is not among")
            if kind.suffix != ".h5ad"
            else (pytest.raises(OutputError, match="nothing is predicted"))
        ):
            write_result(path, ours if kind.suffix != ".h5ad" else _empty(ours), ["XYZ"])
    assert not list(tmp_path.iterdir())


def _empty(saved):
    return replace(saved, prediction=saved.prediction.take(np.zeros(11, bool)))
