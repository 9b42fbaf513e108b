"""SpatialData stores written by spatialdata 0.7.3 itself: ``data/spatialdata_tiny.zip``.

Both hold 30 spots of a hexagonal array on a 96 x 64 px image; spots lie in a mirrored, scaled
frame of their own, their shapes in another order than the table. ``one.zarr`` (Zarr 2) has a
scaled image beside a reduced copy; ``two.zarr`` (Zarr 3) an image that is scaled differently
along x and y and then moved, and a second region that is a label image.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from napari_dkan.errors import SpotsError
from napari_dkan.expression.array_geometry import mpp_from_spots
from napari_dkan.expression.readers.discovery import find_sections, read_sections
from napari_dkan.expression.readers.layouts.spatialdata_sections import (
    apply_transform,
    bin_um_from_region_name,
    read_spatialdata_section,
    transforms_to_systems,
)
from napari_dkan.slide import open_slide
from napari_dkan.spatial.spots import Spots

ARRAY = np.array([(x, y) for y in range(5) for x in range(y % 2, 12, 2)])
PIXELS = np.column_stack([8 + 7.0 * ARRAY[:, 0], 6 + 7 * np.sqrt(3) * ARRAY[:, 1]])


@pytest.fixture
def stores(tmp_path: Path) -> Path:
    with zipfile.ZipFile(Path(__file__).parent / "data" / "spatialdata_tiny.zip") as archive:
        archive.extractall(tmp_path)
    return tmp_path


def test_spots_are_placed_on_the_finest_image(stores: Path) -> None:
    assert [(f.name, f.layout) for f in find_sections(stores)] == [
        ("one", "SpatialData"),
        ("two cells", "SpatialData"),
        ("two spots", "SpatialData"),
    ]
    for data, store in zip(
        read_sections(stores, ["one", "two spots"]), ["one", "two"], strict=True
    ):
        np.testing.assert_allclose(data.obsm["spatial"], PIXELS, atol=1e-9)
        np.testing.assert_array_equal(data.obs[["array_col", "array_row"]], ARRAY)
        assert data.obs_names.tolist() == [f"spots{i}" for i in range(30)]
        assert data.X[2].toarray().tolist() == [[2, 3, 4, 5]]
        assert data.uns["image"] == str(stores / f"{store}.zarr" / "images" / "full")
        assert data.uns["mpp"] == pytest.approx(
            mpp_from_spots(Spots(PIXELS, ARRAY, pitch_um=100.0))
        )
        with open_slide(data.uns["image"]) as slide:
            assert (slide.width, slide.height) == (96, 64)


def test_a_store_may_be_given_itself_and_may_lack_an_image(stores: Path) -> None:
    shutil.rmtree(stores / "one.zarr" / "images")
    (data,) = read_sections(stores / "one.zarr")
    assert data.uns["image"] == "" and "no image" in data.uns["image_note"]


def _edit(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_bad_stores_get_one_sentence(stores: Path) -> None:
    with pytest.raises(SpotsError, match=r"two\.zarr: cells is a label image; .*Convert"):
        read_sections(stores, ["two cells"])
    shapes = stores / "one.zarr" / "shapes" / "spots"
    zattrs = shapes / ".zattrs"

    def of(kind: str):
        return lambda c: c["coordinateTransformations"][0].update({"type": kind})

    for kind in ("bijection", "scale", "sequence"):  # unknown, or its numbers are missing
        _edit(zattrs, of(kind))
        with pytest.raises(
            SpotsError, match=r"shapes.spots: its coordinate transformation to global"
        ):
            read_sections(stores, ["one"])
    _edit(zattrs, of("affine"))

    whole = (shapes / "shapes.parquet").read_bytes()
    (shapes / "shapes.parquet").write_bytes(whole[:-100])
    with pytest.raises(SpotsError, match=r"shapes\.parquet is not a readable Parquet"):
        read_sections(stores, ["one"])
    (shapes / "shapes.parquet").unlink()
    with pytest.raises(SpotsError, match=r"no shapes/spots/shapes\.parquet"):
        read_sections(stores, ["one"])
    (shapes / "shapes.parquet").write_bytes(whole)
    shutil.rmtree(stores / "one.zarr" / "tables" / "table" / "X")
    with pytest.raises(SpotsError, match=r"holds no raw counts in X"):
        read_sections(stores, ["one"])


def test_damaged_counts_do_not_end_the_process(stores: Path) -> None:
    import zarr

    zarr.open_group(str(stores / "two.zarr" / "tables" / "table" / "X"))["indices"][3] = 2**30
    with pytest.raises(SpotsError, match="is not a readable table"):
        read_sections(stores, ["two spots"])


def test_shapes_of_other_instances_are_refused(stores: Path) -> None:
    import pandas as pd

    path = stores / "one.zarr" / "shapes" / "spots" / "shapes.parquet"
    table = pd.read_parquet(path)
    table.iloc[1:].to_parquet(path)
    with pytest.raises(SpotsError, match="has no shape for 1 spots"):
        read_spatialdata_section(stores / "one.zarr", "table", "spots", "one")
    pd.concat([table, table.iloc[:1]]).to_parquet(path)
    with pytest.raises(SpotsError, match=r"shapes\.parquet names \d+ twice"):
        read_spatialdata_section(stores / "one.zarr", "table", "spots", "one")
    table.assign(geometry=b"circle").to_parquet(path)
    with pytest.raises(SpotsError, match="holds no readable geometry"):
        read_spatialdata_section(stores / "one.zarr", "table", "spots", "one")


def test_transformations_compose_in_order_and_by_axis_name() -> None:
    yx = {"axes": [{"name": "c"}, {"name": "y"}, {"name": "x"}]}
    sequence = {
        "type": "sequence",
        "transformations": [
            {"type": "scale", "scale": [1, 2, 3], "input": yx},
            {"type": "translation", "translation": [0, 10, 20], "input": yx},
            {"type": "mapAxis", "mapAxis": {"x": "y", "y": "x"}},
        ],
        "output": {"name": "aligned"},
    }
    systems = transforms_to_systems([{"type": "identity"}, sequence], ["c", "y", "x"])
    assert set(systems) == {"global", "aligned"}
    point = np.array([[1.0, 1.0]])
    assert apply_transform(systems["global"], point).tolist() == [[1, 1]]
    assert apply_transform(systems["aligned"], point).tolist() == [
        [12, 23]
    ]  # x and y changed places
    affine = {"type": "affine", "affine": [[0, 1, 5], [2, 0, 6]], "input": {"axes": yx["axes"][1:]}}
    affine["output"] = {"name": "global", "axes": affine["input"]["axes"]}
    assert apply_transform(
        transforms_to_systems([affine], ["y", "x"])["global"], np.array([[3.0, 4.0]])
    ).tolist() == [[2 * 4 + 6, 3 + 5]]


def test_visium_hd_bins_tell_their_size_by_name() -> None:
    assert (
        bin_um_from_region_name("P1_square_008um") == 8.0
        and bin_um_from_region_name("spots") is None
    )
