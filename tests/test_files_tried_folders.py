"""Folders of 10x as people have them: files one level up or down, prefixes, header lines."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest

from napari_dkan.errors import SpotsError
from napari_dkan.expression.readers.discovery import read_sections
from napari_dkan.expression.readers.read_account import account_of
from napari_dkan.expression.readers.single_section import read_single_section
from napari_dkan.expression.tables.count_files import read_counts

from .known_section import (
    N_SPOTS,
    KnownSection,
    write_mtx,
    write_mtx_files,
    write_space_ranger,
)


def check(data) -> None:
    np.testing.assert_array_equal(data.X.toarray(), KnownSection().counts)
    np.testing.assert_allclose(data.obsm["spatial"], KnownSection().xy)


def write_cell_ranger_2(root: Path, *genomes: str) -> Path:
    folder = write_space_ranger(KnownSection(), root)
    (folder / "filtered_feature_bc_matrix.h5").unlink()
    for genome in genomes:
        inside = folder / "filtered_gene_bc_matrices" / genome
        write_mtx_files(KnownSection(), inside, "", "genes.tsv")
    return folder


def test_the_matrix_of_cell_ranger_2_is_one_level_down(tmp_path: Path) -> None:
    folder = write_cell_ranger_2(tmp_path, "GRCh38")
    (data,) = read_sections(folder)
    check(data)
    counts = read_counts(folder / "filtered_gene_bc_matrices")
    np.testing.assert_array_equal(counts.matrix.toarray(), KnownSection().counts)


def test_matrices_of_two_genomes_are_refused_by_name(tmp_path: Path) -> None:
    folder = write_cell_ranger_2(tmp_path, "GRCh38", "mm10")
    with pytest.raises(SpotsError, match=r"2 matrices \(GRCh38, mm10\); give one of them"):
        read_sections(folder)


def test_prefixed_files_inside_the_folder_of_the_matrix(tmp_path: Path) -> None:
    folder = write_mtx(KnownSection(), tmp_path)
    shutil.rmtree(folder / "filtered_feature_bc_matrix")
    write_mtx_files(KnownSection(), folder / "filtered_feature_bc_matrix", "GSM1_A1_")
    (data,) = read_sections(folder)
    check(data)


def test_matrices_of_two_samples_in_a_folder_are_refused_by_name(tmp_path: Path) -> None:
    for prefix in ("GSM1_A1_", "GSM2_B1_"):
        write_mtx_files(KnownSection(), tmp_path / "m", prefix)
    with pytest.raises(SpotsError, match=r"2 matrices .GSM1_A1_matrix.mtx.gz, GSM2_B1"):
        read_counts(tmp_path / "m")


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("features.tsv.gz", "gene_id\tgene_name\tfeature_type"),
        ("features.tsv.gz", "V1\tV2\tV3"),
        ("barcodes.tsv.gz", "barcode"),
        ("barcodes.tsv.gz", "x"),
    ],
)
def test_header_lines_of_lists(name: str, header: str, tmp_path: Path) -> None:
    folder = write_mtx(KnownSection(), tmp_path)
    path = folder / "filtered_feature_bc_matrix" / name
    lines = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(header.encode() + b"\n" + lines))
    (data,) = read_sections(folder)
    check(data)
    assert data.var["gene_ids"].tolist() == KnownSection().ids
    assert any(f"{name}: its first line" in note for note in account_of(data).notes)


@pytest.mark.parametrize(
    ("name", "line", "is_first"),
    [("features.tsv.gz", "ENSG00000000001\tA\tGene Expression", True),
     ("barcodes.tsv.gz", "barcode", False)],
)  # fmt: skip
def test_a_line_too_many_that_is_no_header_is_refused(name, line, is_first, tmp_path: Path) -> None:
    folder = write_mtx(KnownSection(), tmp_path)
    path = folder / "filtered_feature_bc_matrix" / name
    lines, line = gzip.decompress(path.read_bytes()), line.encode() + b"\n"
    path.write_bytes(gzip.compress(line + lines if is_first else lines + line))
    n_rows = 5 if name.startswith("features") else N_SPOTS + 1
    with pytest.raises(SpotsError, match=f"{name} has {n_rows} rows and .* {n_rows - 1}"):
        read_sections(folder)


def test_a_prefixed_spatial_folder_beside_a_plain_h5(tmp_path: Path) -> None:
    folder = write_space_ranger(KnownSection(), tmp_path)
    (folder / "spatial").rename(folder / "A1_spatial")
    (data,) = read_sections(folder)
    check(data)
    shutil.copytree(folder / "A1_spatial", folder / "B1_spatial")
    with pytest.raises(SpotsError, match=r"A1_spatial, B1_spatial.*call the right one spatial"):
        read_sections(folder)


@pytest.mark.parametrize("prefix", ["", "A1_"])
def test_positions_beside_the_counts(prefix: str, tmp_path: Path) -> None:
    folder = write_space_ranger(KnownSection(), tmp_path)
    name = "tissue_positions.csv"
    (folder / "spatial" / name).rename(folder / f"{prefix}{name}")
    for root in (folder, tmp_path):
        (data,) = read_sections(root)
        check(data)


def test_without_positions_the_places_are_named(tmp_path: Path) -> None:
    folder = write_space_ranger(KnownSection(), tmp_path)
    shutil.rmtree(folder / "spatial")
    with pytest.raises(
        SpotsError, match=r"spatial has no tissue_positions.csv, and none lies beside"
    ):
        read_sections(folder)


def test_counts_may_be_a_space_ranger_folder(tmp_path: Path) -> None:
    folder = write_space_ranger(KnownSection(), tmp_path)
    (folder / "image.tif").touch()
    positions = folder / "spatial" / "tissue_positions.csv"
    outs = tmp_path / "run" / "outs"
    shutil.copytree(folder, outs)
    for counts, spots in ((folder, None), (folder, positions), (outs.parent, None)):
        data = read_single_section(None, counts, spots)
        check(data)
        assert data.uns["image"] == ("" if spots else str(counts / "image.tif")) or counts != folder
    assert read_single_section(folder / "image.tif", outs).uns["image"] == str(folder / "image.tif")


def test_counts_may_be_a_folder_of_one_sample_with_prefixes(tmp_path: Path) -> None:
    folder = write_space_ranger(KnownSection(), tmp_path)
    counts = folder / "filtered_feature_bc_matrix.h5"
    counts.rename(folder / f"GSM1_{counts.name}")
    check(read_single_section(None, folder))
