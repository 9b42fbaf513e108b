"""Whatever people hand in: one sentence that names the file, never a traceback."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse

from napari_dkan.errors import SpotsError
from napari_dkan.expression.counts import counts_from_matrix
from napari_dkan.expression.gene_names import FeatureTable
from napari_dkan.expression.readers.discovery import find_sections, read_sections
from napari_dkan.expression.readers.single_section import read_single_section
from napari_dkan.expression.tables.count_files import read_counts
from napari_dkan.expression.tables.spot_files import read_spots

from .section_files import st_counts, st_spots, write_positions, write_st, write_tenx


def test_folders_without_sections(tmp_path: Path) -> None:
    with pytest.raises(SpotsError, match="gone does not exist"):
        find_sections(tmp_path / "gone")
    with pytest.raises(SpotsError, match="holds no sections; give a folder with ST-cnts"):
        find_sections(tmp_path)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(SpotsError, match="is not a folder with sections"):
        find_sections(tmp_path / "notes.txt")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("gone.tsv", None, "does not exist"),
        ("empty.tsv", b"", "not a readable table"),
        ("header.tsv", b"\tA\tB\n", "holds no counts"),
        ("nogenes.tsv", b"spot\na\nb\n", "holds no counts"),
        ("minus.tsv", b"\tA\n1x1\t-1\n", "negative or missing"),
        ("missing.tsv", b"\tA\tB\n1x1\t1\t\n", "negative or missing"),
        ("infinite.csv", b",A\n1x1,inf\n", "negative or missing"),
        ("logged.csv", b",A,B\na,0.3,1.7\nb,2.2,0.1\n", "holds fractions instead of counts"),
        ("words.csv", b",A\na,many\n", "something other than counts"),
        ("twice.csv", b",A\na-1,1\na-1,2\n", "two rows for spot a-1"),
        ("rounded.csv", b",A\n1.02x1,1\n1x0.98,2\n", "two rows for spot 1x1"),
        ("text.h5", b"not hdf5", "not a readable 10x matrix"),
        ("text.h5ad", b"not hdf5", "not a readable h5ad"),
        ("text.parquet", b"PAR1 is not enough", "not a readable Parquet"),
    ],
)
def test_bad_counts(tmp_path: Path, name: str, content: bytes | None, says: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SpotsError, match=says) as caught:
        read_counts(path)
    assert name in str(caught.value)


def test_two_columns_of_one_gene_are_summed(tmp_path: Path) -> None:
    path = tmp_path / "c.tsv"
    path.write_text("\tA\tB\tA\n1x1\t1\t2\t4\n")
    counts = read_counts(path)
    assert (counts.genes, counts.n_merged_genes) == (("A", "B"), 1)
    assert counts.matrix.toarray().tolist() == [[5, 2]]


@given(st.lists(st.sampled_from("ABCDE"), min_size=1, max_size=12), st.integers(0, 99))
def test_summing_keeps_every_count(genes: list[str], seed: int) -> None:
    matrix = np.random.default_rng(seed).poisson(1.0, (4, len(genes)))
    features = FeatureTable(genes, [f"E{g}" for g in genes])
    counts = counts_from_matrix(matrix, list("wxyz"), features, Path("m"))
    assert counts.genes == tuple(dict.fromkeys(genes))
    assert counts.ensembl_ids == tuple(f"E{g}" for g in counts.genes)
    for column, gene in enumerate(counts.genes):
        expected = matrix[:, [g == gene for g in genes]].sum(axis=1)
        np.testing.assert_array_equal(counts.matrix[:, column].toarray().ravel(), expected)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(st.floats(0, 0.999))
def test_a_10x_file_that_is_cut_short(data_dir: Path, tmp_path: Path, share: float) -> None:
    whole = (data_dir / "visium" / "filtered_feature_bc_matrix.h5").read_bytes()
    path = tmp_path / "cut.h5"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(SpotsError, match=r"cut\.h5 is not a readable 10x matrix"):
        read_counts(path)


def test_indices_out_of_range_do_not_end_the_process(tmp_path: Path) -> None:
    """scipy follows whatever indices a sparse matrix states."""
    write_tenx(tmp_path / "m.h5", np.ones((3, 2)), ["a", "b", "c"], ["A", "B"])
    data = anndata.AnnData(sparse.csr_matrix(np.ones((3, 2), dtype=np.float32)))
    data.obsm["spatial"] = np.arange(6.0).reshape(3, 2)
    data.write_h5ad(tmp_path / "m.h5ad")
    for name, group in (("m.h5", "matrix"), ("m.h5ad", "X")):
        for part, value in (("indices", 2**30), ("indices", -7), ("indptr", 2**30)):
            path = tmp_path / f"bad_{name}"
            shutil.copy(tmp_path / name, path)
            with h5py.File(path, "r+") as file:
                file[group][part][1] = value
            with pytest.raises(SpotsError, match=f"bad_{name} (is not a readable|holds something)"):
                read_counts(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(st.data())
def test_positions_with_damaged_bytes(data_dir: Path, tmp_path: Path, data: st.DataObject) -> None:
    """A damaged file is read, or refused with a SpotsError; nothing else escapes."""
    source = data_dir / "visium" / "spatial" / "tissue_positions_list.csv"
    if data.draw(st.booleans()):
        path = tmp_path / "tissue_positions_list.csv"
        content = bytearray(source.read_bytes()[:4000])
    else:
        path = tmp_path / "tissue_positions.parquet"
        xy = np.arange(32.0).reshape(16, 2)
        write_positions(path, [f"b{i}" for i in range(16)], [1] * 16, xy)
        content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        spots = read_spots(path)
    except SpotsError:
        return
    assert np.isfinite(spots.xy).all()


def test_bad_space_ranger_folders(data_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "S1"
    shutil.copytree(data_dir / "visium", folder)
    for name in ("a.tif", "b.tif"):
        (folder / name).touch()
    with pytest.raises(SpotsError, match=r"S1 holds 2 images \(a\.tif, b\.tif\) and one"):
        read_sections(tmp_path)
    (folder / "b.tif").rename(folder / "S1.tif")
    assert read_sections(tmp_path)[0].uns["image"] == str(folder / "S1.tif")

    (folder / "spatial" / "scalefactors_json.json").write_text("{")
    with pytest.raises(SpotsError, match=r"scalefactors_json\.json is not a readable JSON"):
        read_sections(tmp_path)
    (folder / "spatial" / "scalefactors_json.json").unlink()
    positions = folder / "spatial" / "tissue_positions_list.csv"
    lines = positions.read_text().splitlines()
    twice = next(line for line in lines if "-1,1," in line)
    positions.write_text("\n".join([*lines, twice]))
    with pytest.raises(SpotsError, match=r"positions_list\.csv places two spots at array"):
        read_sections(tmp_path)
    positions.write_text("\n".join("x" + line for line in lines))
    with pytest.raises(SpotsError, match=r"no spot in common: A.* is not like xA"):
        read_sections(tmp_path)
    positions.write_text("\n".join(line.replace("-1,1,", "-1,0,") for line in lines))
    with pytest.raises(SpotsError, match=r"positions_list\.csv holds no spots"):
        read_sections(tmp_path)
    positions.unlink()
    with pytest.raises(SpotsError, match=r"spatial has no tissue_positions\.csv"):
        read_sections(tmp_path)

    (folder / "filtered_feature_bc_matrix.h5").unlink()
    (folder / "filtered_feature_bc_matrix").mkdir()
    write_positions(folder / "spatial" / "tissue_positions.csv", ["a"], [1], np.ones((1, 2)))
    with pytest.raises(SpotsError, match=r"bc_matrix has no matrix\.mtx\.gz"):
        read_sections(tmp_path)
    for name, text in (("features.tsv", "E1\tA\n"), ("barcodes.tsv", "a\n"), ("matrix.mtx", "?")):
        (folder / "filtered_feature_bc_matrix" / name).write_text(text)
    with pytest.raises(SpotsError, match=r"matrix\.mtx is not a readable matrix"):
        read_sections(tmp_path)


def test_a_barcode_twice(tmp_path: Path) -> None:
    write_tenx(tmp_path / "m.h5", [[1, 2], [3, 4]], ["a-1", "a-1"], ["A", "B"])
    with pytest.raises(SpotsError, match=r"m\.h5 has two rows for spot a-1"):
        read_counts(tmp_path / "m.h5")
    write_tenx(tmp_path / "m.h5", [[1, 2], [3, 4]], ["a-1", "b-1"], ["A", "B"])
    spots = tmp_path / "spots.csv"
    spots.write_text("id,x,y\na-1,1,1\na-1,2,2\n")
    with pytest.raises(SpotsError, match=r"spots\.csv names spot a-1 twice"):
        read_single_section(None, tmp_path / "m.h5", spots)
    spots.write_text("x,y\n1,1\n")
    with pytest.raises(SpotsError, match=r"spots\.csv does not name its spots"):
        read_single_section(None, tmp_path / "m.h5", spots)
    with pytest.raises(SpotsError, match=r"m\.h5 does not say where its spots are"):
        read_single_section(None, tmp_path / "m.h5")
    with pytest.raises(SpotsError, match=r"gone\.tif does not exist"):
        read_single_section(tmp_path / "gone.tif", tmp_path / "m.h5", spots)


def test_one_spot_alone_is_read_without_a_pixel_size(tmp_path: Path) -> None:
    write_tenx(tmp_path / "m.h5", [[1, 2]], ["a-1"], ["A", "B"])
    (tmp_path / "spots.csv").write_text("id,x,y\na-1,10,20\n")
    data = read_single_section(None, tmp_path / "m.h5", tmp_path / "spots.csv")
    assert data.shape == (1, 2) and np.isnan(data.uns["mpp"]) and data.uns["mpp_origin"] == ""
    spots = st_spots(side=1)
    write_st(tmp_path, "Z1", spots, st_counts(spots), ".tsv.gz")
    (tmp_path / "ST-imgs" / "Z" / "Z1").mkdir(parents=True)
    (tmp_path / "ST-imgs" / "Z" / "Z1" / "he.jpg").touch()
    with pytest.raises(SpotsError, match=r"Z1_selection\.tsv: The pixel size cannot be fitted"):
        read_sections(tmp_path)


def test_bad_published_sections(tmp_path: Path) -> None:
    spots = st_spots()
    write_st(tmp_path, "Z1", spots.drop(columns="pixel_x"), st_counts(spots), "_sub.parquet")
    with pytest.raises(SpotsError, match=r"Z1_selection\.tsv is not a spot file of this layout"):
        read_sections(tmp_path)
    write_st(tmp_path, "Z1", pd.concat([spots, spots]), st_counts(spots), "_sub.parquet")
    with pytest.raises(SpotsError, match=r"Z1_selection\.tsv names spot 1x1 twice"):
        read_sections(tmp_path)
    (tmp_path / "ST-spotfiles" / "Z1_selection.tsv").unlink()
    with pytest.raises(SpotsError, match=r"Z1_selection\.tsv does not exist"):
        read_sections(tmp_path)


@pytest.mark.filterwarnings("ignore:Observation names are not unique")
def test_bad_h5ads(tmp_path: Path) -> None:
    path = tmp_path / "a.h5ad"
    counts = np.ones((3, 2), dtype=np.float32)

    def write(x: np.ndarray, **parts) -> None:
        anndata.AnnData(x, **parts).write_h5ad(path)

    def refuses(says: str) -> None:
        with pytest.raises(SpotsError, match=says) as caught:
            read_sections(path)
        assert "a.h5ad" in str(caught.value)

    xy = np.array([[1.0, 2], [3, 4], [5, 6]])
    write(counts)
    refuses(r"has no obsm\['spatial'\]")
    write(counts, obsm={"spatial": xy * np.nan})
    refuses("must hold a finite x and y")
    write(counts, obsm={"spatial": xy[:, :1]})
    refuses("must hold a finite x and y")
    write(np.log1p(counts * 3), obsm={"spatial": xy})
    refuses(r"holds no raw counts in X; put the raw counts into layers\['counts'\]")
    write(-counts, obsm={"spatial": xy})
    refuses("negative or missing")
    write(counts, obsm={"spatial": xy}, layers={"counts": counts * np.nan})
    refuses("negative or missing")
    write(counts, obsm={"spatial": xy}, obs=pd.DataFrame(index=["a", "a", "b"]))
    refuses("two rows for spot a")
    array = pd.DataFrame({"array_row": [1, 1, 2], "array_col": [1, 1, 2]}, index=list("abc"))
    write(counts, obsm={"spatial": xy}, obs=array)
    refuses("places two spots at array position 1x1")
    write(counts[:0], obsm={"spatial": xy[:0]})
    refuses("holds no")


def test_bad_hest_metadata(tmp_path: Path) -> None:
    for folder in ("st", "metadata"):
        (tmp_path / folder).mkdir()
    data = anndata.AnnData(np.ones((3, 2), dtype=np.float32))
    data.obsm["spatial"] = np.arange(6.0).reshape(3, 2)
    data.write_h5ad(tmp_path / "st" / "T1.h5ad")
    (read,) = read_sections(tmp_path)  # neither image nor metadata: told, not guessed
    assert read.uns["image"] == "" and "wsis/T1.tif" in read.uns["image_note"]
    assert np.isnan(read.uns["mpp"]) and np.isnan(read.uns["spot_pitch_um"])
    for content in ("[1]", "{", json.dumps("text")):
        (tmp_path / "metadata" / "T1.json").write_text(content)
        with pytest.raises(SpotsError, match=r"T1\.json (is not a readable|holds no JSON)"):
            read_sections(tmp_path)
