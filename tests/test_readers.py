"""Every layout gives the same kind of section, on real files where there are some."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_dkan.errors import SpotsError
from napari_dkan.expression.array_geometry import array_coords_from_lattice, mpp_from_spots
from napari_dkan.expression.label_scale import array_coords_from_section
from napari_dkan.expression.readers.discovery import find_sections, read_sections
from napari_dkan.expression.readers.layouts.her2st_sections import (
    find_dkan_gene_text,
    find_dkan_panel,
    read_her2st_section,
)
from napari_dkan.expression.readers.single_section import read_single_section
from napari_dkan.expression.tables.count_files import read_counts
from napari_dkan.expression.tables.spot_files import read_spots
from napari_dkan.spatial.spots import Spots

from .section_files import st_counts, st_spots, write_bins, write_st, write_tenx

FACTS = {
    "section", "patient", "image", "mpp", "mpp_origin", "spot_pitch_um", "spot_diameter_um",
    "spots_without_counts",
}  # fmt: skip


def assert_section(data) -> None:
    """What training relies on, whatever the layout."""
    assert data.X.format == "csr" and data.X.dtype == np.float32
    assert data.obs_names.is_unique and data.var_names.is_unique
    assert data.obsm["spatial"].shape == (data.n_obs, 2)
    assert set(data.uns) >= FACTS
    assert all(isinstance(data.uns[k], str) for k in ("section", "patient", "image", "mpp_origin"))
    assert all(isinstance(data.uns[k], float) for k in FACTS if k.endswith("_um") or k == "mpp")


def test_her2st_sections_are_found_with_their_patient(data_dir: Path) -> None:
    found = find_sections(data_dir)
    assert [(f.name, f.patient, f.layout) for f in found] == [
        (f"C{i}", "C", "her2st") for i in (2, 3, 4, 5)
    ]
    (c3,) = read_sections(data_dir, ["C3"])
    assert_section(c3)
    assert c3.uns["patient"] == "C" and c3.n_obs == 180
    with pytest.raises(SpotsError, match=r"no section D1; it holds C2, C3, C4, C5\."):
        read_sections(data_dir, ["C2", "D1"])
    with pytest.raises(SpotsError, match="C2 is named twice"):
        read_sections(data_dir, ["C2", "C2"])


def test_loose_files_give_the_section_that_the_folder_gives(data_dir: Path) -> None:
    root = data_dir / "her2st"
    whole = read_her2st_section(data_dir, "C3")
    spots = root / "ST-spotfiles" / "C3_selection.tsv"
    loose = read_single_section(whole.uns["image"], root / "ST-cnts" / "C3.tsv.gz", spots)
    assert (loose.X != whole.X).nnz == 0
    assert loose.obs_names.tolist() == whole.obs_names.tolist()
    assert loose.uns["mpp"] == whole.uns["mpp"] and loose.uns["image"] == whole.uns["image"]

    # an h5ad says where its spots are; its facts lie deep in uns, its array in array_x, array_y
    crop = read_single_section(root / "crop" / "C3_crop.jpg", root / "crop" / "C3_crop.h5ad")
    assert_section(crop)
    assert crop.uns["mpp"] == 0.6874 and crop.uns["spot_pitch_um"] == 200.0
    assert array_coords_from_section(crop)[0].tolist() == [11, 10] and crop.obs_names[0] == "11x10"
    both = whole[crop.obs_names, crop.var_names]
    assert (both.X != crop.X).nnz == 0
    beside = read_single_section(None, root / "crop" / "C3_crop.h5ad")
    assert Path(beside.uns["image"]).name == "C3_crop.ome.tif"


def test_a_real_space_ranger_folder(data_dir: Path, tmp_path: Path) -> None:
    import scanpy

    folder = data_dir / "visium"
    (data,) = read_sections(folder)
    assert_section(data)
    assert (data.uns["section"], data.uns["image"]) == ("visium", "")
    assert "no full-resolution image" in data.uns["image_note"]
    positions = read_spots(folder / "spatial" / "tissue_positions_list.csv")
    assert data.uns["mpp"] == mpp_from_spots(positions)
    assert data.n_obs + data.uns["spots_without_counts"] == len(positions)

    theirs = scanpy.read_10x_h5(folder / "filtered_feature_bc_matrix.h5")[data.obs_names]
    assert data.var_names.tolist() == theirs.var_names.tolist()
    assert data.var["gene_ids"].tolist() == theirs.var["gene_ids"].tolist()
    assert (data.X != theirs.X).nnz == 0

    # the same as a folder of Matrix Market files, in outs, with a slide beside it
    from scipy.io import mmwrite

    outs = tmp_path / "S1" / "outs"
    matrix = outs / "filtered_feature_bc_matrix"
    matrix.mkdir(parents=True)
    shutil.copytree(folder / "spatial", outs / "spatial")
    theirs = scanpy.read_10x_h5(folder / "filtered_feature_bc_matrix.h5")
    mmwrite(matrix / "matrix.mtx", theirs.X.T)
    features = pd.DataFrame({"id": theirs.var["gene_ids"], "name": theirs.var_names})
    features.assign(kind="Gene Expression").to_csv(
        matrix / "features.tsv.gz", sep="\t", header=False, index=False
    )
    theirs.obs.to_csv(matrix / "barcodes.tsv.gz", sep="\t", header=False)
    (outs / "tissue_hires_image.png").touch()
    for name in ("S1_he.tif", "S10.tif"):
        (tmp_path / name).touch()
    (again,) = read_sections(tmp_path)
    assert again.uns["section"] == "S1" and (again.X != data.X).nnz == 0
    assert again.uns["image"] == str(tmp_path / "S1_he.tif")


def test_visium_hd_bins_have_the_pitch_of_their_size(tmp_path: Path) -> None:
    sample = tmp_path / "HD1"
    barcodes = write_bins(sample, 8, mpp=0.27)
    write_bins(sample, 16, mpp=0.27)
    (sample / "slide.btf").touch()
    (data,) = read_sections(tmp_path)
    assert_section(data)
    assert data.uns["section"] == "HD1" and data.uns["image"] == str(sample / "slide.btf")
    assert data.obs_names.tolist() == barcodes[1:]
    assert data.uns["spot_pitch_um"] == data.uns["spot_diameter_um"] == 8.0
    assert (data.uns["mpp"], data.uns["mpp_origin"]) == (0.27, "Space Ranger's scale factors")
    assert "mpp_note" not in data.uns  # the array agrees
    (coarse,) = read_sections(sample / "binned_outputs" / "square_016um")
    assert coarse.uns["section"] == "HD1 square_016um" and coarse.uns["spot_pitch_um"] == 16.0
    assert coarse.uns["image"] == data.uns["image"]


def test_hest_samples(data_dir: Path, tmp_path: Path) -> None:
    data = anndata.read_h5ad(data_dir / "her2st" / "crop" / "C3_crop.h5ad")
    data.obs = pd.DataFrame(
        {"array_row": data.obs["array_y"] + 0.02, "array_col": data.obs["array_x"] - 0.02}
    )
    data.uns = {}
    for folder in ("st", "wsis", "metadata"):
        (tmp_path / folder).mkdir()
    data.write_h5ad(tmp_path / "st" / "SPA1.h5ad")
    (tmp_path / "wsis" / "SPA1.tif").touch()
    meta = {
        "pixel_size_um_estimated": 0.6874,
        "pixel_size_um_embedded": float("nan"),
        "spot_diameter": 100.0,
        "inter_spot_dist": 200.0,
        "patient": "Patient C",
    }
    (tmp_path / "metadata" / "SPA1.json").write_text(json.dumps(meta))
    (found,) = find_sections(tmp_path)
    read = found.read()
    assert_section(read)
    assert (found.layout, read.uns["patient"]) == ("HEST-1k", "Patient C")
    assert read.uns["image"] == str(tmp_path / "wsis" / "SPA1.tif")
    assert (read.uns["mpp"], read.uns["mpp_origin"]) == (0.6874, "HEST metadata")
    assert array_coords_from_section(read)[0].tolist() == [11, 10]

    # a pixel size that is off by ten is kept, and told
    (tmp_path / "metadata" / "SPA1.json").write_text(
        json.dumps(meta | {"pixel_size_um_estimated": 6.874})
    )
    assert "the spot array says 0.68" in found.read().uns["mpp_note"]
    # without one, the array tells
    (tmp_path / "metadata" / "SPA1.json").write_text(
        json.dumps(meta | {"pixel_size_um_estimated": None})
    )
    assert found.read().uns["mpp"] == pytest.approx(0.688, abs=0.01)


def test_the_published_layout_keeps_the_order_of_its_features(
    data_dir: Path, tmp_path: Path
) -> None:
    source = data_dir / "her2st"
    spots = pd.read_csv(source / "ST-spotfiles" / "C3_selection.tsv", sep="\t")
    spots.loc[5, "selected"] = 0  # the published code does not look at this column
    counts = pd.read_csv(source / "ST-cnts" / "C3.tsv.gz", sep="\t", index_col=0).iloc[:, :50]
    root = tmp_path / "her2st"
    write_st(root, "C3", spots, counts, "_sub.parquet")
    (root / "ST-imgs" / "C" / "C3").mkdir(parents=True)
    (root / "ST-imgs" / "C" / "C3" / "he.jpg").touch()
    for folder in ("gt_features_224", "ST-text"):
        (root / folder).mkdir()
    (root / "gt_features_224" / "C3.pt").touch()
    (root / "ST-text" / "her2st_ncbi_biobert.pt").touch()
    (root / "genes_her2st.npy").touch()

    (data,) = read_sections(tmp_path)
    assert_section(data)
    spots.index = [f"{x}x{y}" for x, y in spots[["x", "y"]].round().astype(int).to_numpy()]
    meta = counts.join(spots, how="inner").sort_values(["y", "x"])
    assert data.obs_names.tolist() == meta.index.tolist()
    np.testing.assert_array_equal(data.X.toarray(), meta[counts.columns].to_numpy())
    np.testing.assert_array_equal(data.obsm["spatial"], meta[["pixel_x", "pixel_y"]].to_numpy())
    assert data.uns["patient"] == "C" and data.uns["mpp"] == pytest.approx(0.6874, abs=1e-4)
    assert data.uns["features"] == str(root / "gt_features_224" / "C3.pt")
    assert data.uns["neighbor_features"] == ""
    assert find_dkan_panel(tmp_path) == root / "genes_her2st.npy"
    assert find_dkan_gene_text(tmp_path) == root / "ST-text" / "her2st_ncbi_biobert.pt"


def test_published_images_and_patients_of_the_other_studies(tmp_path: Path) -> None:
    spots = st_spots()
    (tmp_path / "ST-imgs").mkdir()
    for name, image in (("P2_ST_rep1", "GSM1_P2_ST_rep1.jpg"), ("BC23209_C1", "HE_BC23209_C1.tif")):
        write_st(tmp_path, name, spots, st_counts(spots), "_sub.parquet")
        (tmp_path / "ST-imgs" / image).touch()
    sections = {d.uns["section"]: d for d in read_sections(tmp_path)}
    assert {n: d.uns["patient"] for n, d in sections.items()} == {
        "P2_ST_rep1": "P2",
        "BC23209_C1": "BC23209",
    }
    assert Path(sections["P2_ST_rep1"].uns["image"]).name == "GSM1_P2_ST_rep1.jpg"
    assert find_dkan_panel(tmp_path) is None and find_dkan_gene_text(tmp_path) is None


def test_an_h5ad_finds_its_counts_image_and_array(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    counts = rng.poisson(3.0, (25, 4)).astype(np.float32)
    y, x = (a.ravel() for a in np.mgrid[:5, :5])
    data = anndata.AnnData(
        np.log1p(counts), obs=pd.DataFrame(index=[f"b{i}" for i in range(25)]),
        var=pd.DataFrame({"feature_name": ["ERBB2", "CD74", "CD74", "KRT8"]},
                         index=["ENSG1", "ENSG2", "ENSG3", "ENSG4"]),
        layers={"counts": counts},
        obsm={"spatial": np.column_stack([x, y]) * 100.0 + 50},
        uns={"image": "slides/he.tif", "mpp": np.array([0.5]), "patient": "P7"},
    )  # fmt: skip
    data.write_h5ad(tmp_path / "mine.h5ad")
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides" / "he.tif").touch()
    (read,) = read_sections(tmp_path / "mine.h5ad")
    assert_section(read)
    assert read.var_names.tolist() == ["ERBB2", "CD74", "KRT8"]  # one symbol, one gene
    assert read.var["gene_ids"].tolist() == ["ENSG1", "ENSG2", "ENSG4"]
    assert read.uns["genes_merged"] == 1
    merged = np.column_stack([counts[:, 0], counts[:, 1] + counts[:, 2], counts[:, 3]])
    np.testing.assert_array_equal(read.X.toarray(), merged)
    assert read.uns["image"] == str(tmp_path / "slides" / "he.tif")
    assert (read.uns["mpp"], read.uns["patient"]) == (0.5, "P7")
    assert "derived" in read.uns["array_note"] and np.isnan(read.uns["spot_pitch_um"])
    np.testing.assert_array_equal(array_coords_from_section(read), np.column_stack([x, y]))

    # positions without a lattice give no array, and whoever needs one says so
    data.obsm["spatial"] = rng.uniform(0, 500, (25, 2))
    data.raw = data.copy()
    data.raw.X[:] = counts
    del data.layers["counts"]
    data.write_h5ad(tmp_path / "mine.h5ad")
    read = read_single_section(None, tmp_path / "mine.h5ad")
    assert read.X.sum() == counts.sum()
    with pytest.raises(SpotsError, match="mine has no whole array coordinates"):
        array_coords_from_section(read)


def test_a_table_tells_which_sections_belong_to_one_patient(tmp_path: Path) -> None:
    spots = st_spots()
    for name in ("s1", "s2"):
        write_st(tmp_path, name, spots, st_counts(spots), ".parquet")
    (tmp_path / "patients.csv").write_text("section,patient\ns1,Ann\ns2,Ann\n")
    assert [f.patient for f in find_sections(tmp_path)] == ["Ann", "Ann"]
    assert read_sections(tmp_path, ["s2"])[0].uns["patient"] == "Ann"
    (tmp_path / "patients.csv").write_text("name,patient\ns1,Ann\n")
    with pytest.raises(SpotsError, match=r"patients\.csv needs the columns section and patient"):
        find_sections(tmp_path)


def test_only_genes_are_taken_from_a_10x_file(tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    kinds = ["Gene Expression", "Antibody Capture", "Gene Expression"]
    write_tenx(path, [[1, 9, 2], [0, 9, 4]], ["a-1", "b-1"], ["G", "Ab", "G"], kinds=kinds)
    counts = read_counts(path)
    assert (counts.genes, counts.ensembl_ids, counts.n_merged_genes) == (("G",), ("ENSG00000",), 1)
    assert counts.matrix.toarray().tolist() == [[3], [4]]


@given(
    st.floats(-3.2, 3.2),
    st.floats(3, 400),
    st.booleans(),
    st.floats(0, 0.07),
    st.integers(0, 1_000),
)
def test_lattices_are_recognised_however_they_lie(
    angle: float, pitch: float, hexagonal: bool, jitter: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    y, x = (a.ravel() for a in np.mgrid[:12, :12])
    plane = np.column_stack([x + (y % 2) / 2, y * np.sqrt(3) / 2] if hexagonal else [x, y])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    xy = plane.astype(float) @ turn * pitch + 1000
    xy += rng.uniform(-jitter, jitter, xy.shape) * pitch
    xy = xy[rng.random(len(xy)) < 0.85]
    array = array_coords_from_lattice(xy)
    assert array is not None
    assert ((array.sum(axis=1) % 2) == 0).all() or not hexagonal
    fitted = mpp_from_spots(Spots(xy, array, pitch_um=100.0))
    assert fitted == pytest.approx(100.0 / pitch, rel=0.03)


@given(st.integers(0, 1_000))
def test_cells_and_lines_are_no_lattice(seed: int) -> None:
    rng = np.random.default_rng(seed)
    assert array_coords_from_lattice(rng.uniform(0, 1_000, (200, 2))) is None
    line = np.column_stack([np.arange(40.0) * 100, np.full(40, seed)])
    assert array_coords_from_lattice(line) is None
    assert array_coords_from_lattice(np.repeat(line, 2, axis=0)) is None


def test_the_lattice_of_real_sections_is_their_array(data_dir: Path) -> None:
    for file in sorted((data_dir / "her2st" / "ST-spotfiles").glob("*_selection.tsv")):
        spots = read_spots(file)
        found = array_coords_from_lattice(spots.xy)
        assert found is not None and spots.array_coords is not None
        assert len(np.unique(found - spots.array_coords, axis=0)) == 1
    visium = read_spots(data_dir / "visium" / "spatial" / "tissue_positions_list.csv")
    found = array_coords_from_lattice(visium.xy)
    assert found is not None and visium.array_coords is not None
    derived = Spots(visium.xy, found, pitch_um=100.0)
    assert mpp_from_spots(derived) == pytest.approx(mpp_from_spots(visium), rel=1e-3)
