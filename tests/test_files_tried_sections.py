"""Sections as people have them: the same spots, counts and genes from every container."""

from __future__ import annotations

import gzip
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

from napari_dkan.errors import SpotsError
from napari_dkan.expression.readers.discovery import find_sections, read_sections
from napari_dkan.expression.readers.layouts.h5ad_sections import read_h5ad_section
from napari_dkan.expression.readers.read_account import account_of
from napari_dkan.expression.readers.single_section import read_single_section
from napari_dkan.expression.tables.count_files import read_counts
from napari_dkan.expression.tables.spot_files import read_spots

from .known_section import (
    CONTAINERS,
    MPP,
    N_SPOTS,
    KnownSection,
    Writer,
    read_back,
    write_mtx,
    write_mtx_files,
    write_space_ranger,
)
from .section_files import write_tenx
from .slide_files import picture, tiff

pytestmark = pytest.mark.filterwarnings("ignore:.*names are not unique")

every_container = pytest.mark.parametrize(
    "write", CONTAINERS.values(), ids=[name.replace(" ", "-") for name in CONTAINERS]
)
annotated = pytest.mark.parametrize(
    "write", [CONTAINERS[name] for name in ("h5ad", "HEST", "SpatialData")],
    ids=["h5ad", "HEST", "SpatialData"],
)  # fmt: skip


@every_container
def test_a_known_section_is_read_back(write: Writer, tmp_path: Path) -> None:
    section = KnownSection()
    data = read_back(write, section, tmp_path)
    assert data.obs_names.tolist() == section.table["barcode"].tolist()
    np.testing.assert_allclose(data.obsm["spatial"], section.xy, atol=1e-9)
    np.testing.assert_array_equal(data.X.toarray(), section.counts)
    assert data.var_names.tolist() == section.genes
    assert data.var["gene_ids"].tolist() == section.ids
    assert data.uns["mpp"] == pytest.approx(MPP)
    assert not account_of(data).genes_left_out and not account_of(data).spots_left_out


@every_container
@pytest.mark.parametrize("kind", ["Antibody Capture", "CRISPR Guide Capture", "Custom"])
def test_other_features_are_left_out(write: Writer, kind: str, tmp_path: Path) -> None:
    section = KnownSection()
    section.add_features(["ERBB2", "PTPRC"], kind)
    data = read_back(write, section, tmp_path)
    assert data.var_names.tolist() == section.genes[:4]
    np.testing.assert_array_equal(data.X.toarray(), section.counts[:, :4])
    assert account_of(data).genes_left_out == ((f"of type {kind}", 2),)


@every_container
def test_features_without_a_gene_are_refused(write: Writer, tmp_path: Path) -> None:
    section = KnownSection(kinds=["Antibody Capture"] * 4)
    with pytest.raises(SpotsError, match="holds no gene expression but 4 Antibody Capture"):
        read_back(write, section, tmp_path)


@annotated
def test_a_feature_without_type_and_id_is_no_gene(write: Writer, tmp_path: Path) -> None:
    section = KnownSection()
    section.add_features(["ERBB2"], "Gene Expression")
    data = read_back(write, section, tmp_path)
    np.testing.assert_array_equal(data.X.toarray(), section.counts[:, :4])
    assert account_of(data).genes_left_out == (
        ("without an Ensembl id, named as a gene with one", 1),
    )


def test_feature_types_of_var_count_for_raw(tmp_path: Path) -> None:
    section = KnownSection()
    section.add_features(["ERBB2"], "Antibody Capture")
    data = section.anndata()
    data.raw = data.copy()
    data.raw.var.drop(columns=["feature_types", "gene_ids"], inplace=True)
    data.X = data.X * 0.3
    data.write_h5ad(tmp_path / "s.h5ad")
    read = read_h5ad_section(tmp_path / "s.h5ad")
    np.testing.assert_array_equal(read.X.toarray(), section.counts[:, :4])


def test_biotypes_in_feature_type_are_genes(tmp_path: Path) -> None:
    section = KnownSection(kinds=["protein_coding", "lncRNA", "protein_coding", "lncRNA"])
    data = section.anndata()
    data.var = data.var.rename(columns={"feature_types": "feature_type"})
    data.write_h5ad(tmp_path / "s.h5ad")
    assert read_h5ad_section(tmp_path / "s.h5ad").n_vars == 4


@every_container
def test_spots_off_tissue_are_left_out(write: Writer, tmp_path: Path) -> None:
    section = KnownSection()
    section.in_tissue[::3] = 0
    data = read_back(write, section, tmp_path)
    kept = section.in_tissue > 0
    assert data.obs_names.tolist() == section.table["barcode"][kept].tolist()
    np.testing.assert_allclose(data.obsm["spatial"], section.xy[kept], atol=1e-9)
    np.testing.assert_array_equal(data.X.toarray(), section.counts[kept])
    assert account_of(data).spots_left_out == (("not in tissue", 12),)
    assert data.uns["mpp"] == pytest.approx(MPP)


@annotated
@pytest.mark.parametrize("values", [["1", "0"], [True, False], [1.0, 0.0], ["True", "False"]])
def test_in_tissue_of_any_type(write: Writer, values: list, tmp_path: Path) -> None:
    section = KnownSection()
    section.in_tissue = np.array([values[0]] * 30 + [values[1]] * 6)
    assert read_back(write, section, tmp_path).n_obs == 30


def test_in_tissue_that_says_nothing(tmp_path: Path) -> None:
    section = KnownSection()
    section.in_tissue = np.array(["maybe"] * N_SPOTS)
    section.anndata().write_h5ad(tmp_path / "s.h5ad")
    with pytest.raises(SpotsError, match=r"s\.h5ad: in_tissue holds maybe for a spot; write 1"):
        read_spots(tmp_path / "s.h5ad")
    section.in_tissue = np.zeros(N_SPOTS, dtype=int)
    section.anndata().write_h5ad(tmp_path / "s.h5ad")
    with pytest.raises(SpotsError, match=r"s\.h5ad holds no spots in tissue"):
        read_sections(tmp_path / "s.h5ad")


def test_positions_of_an_h5ad_for_prediction_are_in_tissue(tmp_path: Path) -> None:
    section = KnownSection()
    section.in_tissue[:5] = 0
    section.anndata().write_h5ad(tmp_path / "s.h5ad")
    spots = read_spots(tmp_path / "s.h5ad")
    np.testing.assert_allclose(spots.xy, section.xy[5:])
    assert spots.left_out == (("not in tissue", 5),)
    assert spots.off_tissue == tuple(section.table["barcode"][:5])


LEFT = ["A" if i % 6 < 3 else "B" for i in range(N_SPOTS)]
FACTORS = {"spot_diameter_fullres": 110.0}


def two_libraries(column: str = "library_id", keys: tuple[str, ...] = ("A", "B")):
    section = KnownSection()
    data = section.anndata()
    if column:
        data.obs[column] = LEFT
    if keys:
        data.uns["spatial"] = {key: {"scalefactors": FACTORS} for key in keys}
    return section, data


@pytest.mark.parametrize(
    "read", [read_h5ad_section, read_spots, lambda p: read_single_section(None, p)]
)
@pytest.mark.parametrize(
    ("column", "keys"),
    [("library_id", ("A", "B")), ("library_id", ()), ("sample", ()), ("batch", ()),
     ("batch", ("A",)), ("donor", ("A", "B")), ("orig.ident", ())],
)  # fmt: skip
def test_several_sections_are_refused_by_name(read, column, keys, tmp_path: Path) -> None:
    _section, data = two_libraries(column, keys)
    path = tmp_path / "s.h5ad"
    data.write_h5ad(path)
    with pytest.raises(SpotsError, match=r"s\.h5ad holds 2 sections \(A, B\); name one"):
        read(path)


def test_sections_that_no_spot_names(tmp_path: Path) -> None:
    _, data = two_libraries("")
    path = tmp_path / "s.h5ad"
    data.write_h5ad(path)
    with pytest.raises(SpotsError, match=r"sections \(A, B\) in uns\['spatial'\], and no column"):
        read_h5ad_section(path)
    data.obs_names = [f"{name}-{key}" for name, key in zip(data.obs_names, LEFT, strict=True)]
    data.write_h5ad(path)
    assert read_h5ad_section(path, library="B").n_obs == N_SPOTS // 2


@pytest.mark.parametrize("column", ["library_id", "sample", "batch"])
def test_one_section_is_read_by_name(column: str, tmp_path: Path) -> None:
    section, data = two_libraries(column)
    data.uns["image"] = "s.jpg"
    path = tmp_path / "s.h5ad"
    data.write_h5ad(path)
    for name in ("s.jpg", "s_B.tif"):
        (tmp_path / name).touch()
    of_b = np.array(LEFT) == "B"
    found = {entry.name: entry for entry in find_sections(path)}
    assert list(found) == ["s A", "s B"]
    for read in (read_h5ad_section(path, library="B"), found["s B"].read()):
        np.testing.assert_array_equal(read.X.toarray(), section.counts[of_b])
        np.testing.assert_allclose(read.obsm["spatial"], section.xy[of_b])
        assert read.uns["section"] == "s B"
        assert read.uns["image"] == str(tmp_path / "s_B.tif")
    first = found["s A"].read()  # an image called like the file could be that of either
    assert first.uns["image"] == "" and "called A" in first.uns["image_note"]
    np.testing.assert_allclose(read_spots(path, library="B").xy, section.xy[of_b])
    assert read_counts(path, "B").matrix.shape[0] == of_b.sum()
    with pytest.raises(SpotsError, match=r"s\.h5ad has no section C; it holds A, B\."):
        read_h5ad_section(path, library="C")


def test_two_sections_with_the_same_barcodes(tmp_path: Path) -> None:
    """Array positions collide; the advice names the sections, not the positions."""
    _section, data = two_libraries("", ())
    both = anndata.concat({"A": data, "B": data}, label="batch")
    both.write_h5ad(tmp_path / "s.h5ad")
    with pytest.raises(SpotsError, match=r"holds 2 sections \(A, B\)"):
        read_h5ad_section(tmp_path / "s.h5ad")
    with pytest.raises(SpotsError, match=r"holds 2 sections \(A, B\)"):
        read_counts(tmp_path / "s.h5ad")
    assert read_h5ad_section(tmp_path / "s.h5ad", library="A").n_obs == N_SPOTS


def test_one_library_stays_one_section(tmp_path: Path) -> None:
    """A library that is constant decides, whatever other columns say."""
    _section, data = two_libraries("batch", ())
    data.obs["library_id"] = "only"
    data.write_h5ad(tmp_path / "s.h5ad")
    assert [entry.name for entry in find_sections(tmp_path)] == ["s"]
    assert read_h5ad_section(tmp_path / "s.h5ad").n_obs == N_SPOTS


def test_rows_of_several_sections_in_one_region(tmp_path: Path) -> None:
    section = KnownSection(library=LEFT)
    store = CONTAINERS["SpatialData"](section, tmp_path)
    assert [entry.name for entry in find_sections(store)] == ["s A", "s B"]
    of_b = np.array(LEFT) == "B"
    (data,) = read_sections(store, ["s B"])
    np.testing.assert_array_equal(data.X.toarray(), section.counts[of_b])


@pytest.mark.parametrize(
    "columns",
    [("pxl_row_in_fullres", "pxl_col_in_fullres"), ("y", "x"), ("imagerow", "imagecol"),
     ("Y", "X"), ("pixel_y", "pixel_x")],
)  # fmt: skip
@pytest.mark.parametrize("swap", [True, False])
@pytest.mark.parametrize("container", ["h5ad", "HEST"])
def test_columns_of_positions_are_taken_by_name(columns, swap, container, tmp_path: Path) -> None:
    section = KnownSection()
    data = section.anndata()
    frame = pd.DataFrame(section.xy[:, ::-1], index=data.obs_names, columns=list(columns))
    frame["radius"] = 3.0
    data.obsm["spatial"] = frame if swap else frame[frame.columns[[2, 1, 0]]]
    (tmp_path / "st").mkdir()
    path = tmp_path / ("st/s.h5ad" if container == "HEST" else "s.h5ad")
    data.write_h5ad(path)
    (read,) = read_sections(path if container == "h5ad" else tmp_path)
    np.testing.assert_allclose(read.obsm["spatial"], section.xy)
    np.testing.assert_allclose(read_spots(path).xy, section.xy)


def test_columns_of_positions_without_a_meaning(tmp_path: Path) -> None:
    section = KnownSection()
    data = section.anndata()
    data.obsm["spatial"] = pd.DataFrame(
        section.xy, index=data.obs_names, columns=["first", "second"]
    )
    data.write_h5ad(tmp_path / "s.h5ad")
    with pytest.raises(SpotsError, match=r"are first, second, which do not say which is x"):
        read_h5ad_section(tmp_path / "s.h5ad")


SYMBOLS = ["real_gene_name", "hgnc_symbol", "gene_names", "SYMBOL", "feature_name", "gene_symbols"]


@pytest.mark.parametrize("column", SYMBOLS)
@pytest.mark.parametrize("index", ["ids", "versions", "numbers"])
@pytest.mark.parametrize("container", ["h5ad", "SpatialData"])
def test_symbols_in_a_column(column: str, index: str, container: str, tmp_path: Path) -> None:
    section = KnownSection()
    names = {
        "ids": section.ids,
        "versions": [f"{i}.{n + 3}" for n, i in enumerate(section.ids)],
        "numbers": list("0123"),
    }[index]

    class Renamed(KnownSection):
        def anndata(self) -> anndata.AnnData:
            data = super().anndata()
            columns = {"decoy": names, column: self.genes}
            data.var = pd.DataFrame(columns, index=pd.Index(names, name="name"))
            return data

    data = read_back(CONTAINERS[container], Renamed(), tmp_path)
    assert data.var_names.tolist() == section.genes
    if index != "numbers":
        assert data.var["gene_ids"].tolist() == section.ids


@every_container
def test_versions_of_ensembl_ids_are_no_part_of_them(write: Writer, tmp_path: Path) -> None:
    plain = KnownSection().ids
    versions = [f"{i}.{n + 3}" for n, i in enumerate(plain)]
    data = read_back(write, KnownSection(genes=versions, ids=versions), tmp_path)
    assert data.var_names.tolist() == plain and data.var["gene_ids"].tolist() == plain


@pytest.mark.parametrize("ending", [".tsv.gz", ".csv", ".parquet"])
def test_names_of_genes_in_tables(ending: str, tmp_path: Path) -> None:
    section = KnownSection()
    names = section.table["barcode"]
    for genes, read in (
        ([f"{i}.7" for i in section.ids], section.ids),
        ([f"GRCh38_{g}" for g in section.genes], section.genes),
        ([f"GRCh38-{g}" for g in section.genes], section.genes),  # Seurat has no underscores
    ):
        table = pd.DataFrame(section.counts, index=names, columns=genes)
        path = tmp_path / f"c{ending}"
        if ending == ".parquet":
            table.to_parquet(path)
        else:
            table.to_csv(path, sep="," if ending == ".csv" else "\t")
        counts = read_counts(path)
        assert list(counts.genes) == read
        np.testing.assert_array_equal(counts.matrix.toarray(), section.counts)


@every_container
def test_prefixes_of_genomes_are_removed(write: Writer, tmp_path: Path) -> None:
    section = KnownSection()
    genes, ids = list(section.genes), list(section.ids)
    section.genes = [f"GRCh38_{g}" for g in genes]
    section.ids = [f"GRCh38_{i}" for i in ids]
    section.add_features(["mm10___Erbb2"], "Gene Expression", 9)
    data = read_back(write, section, tmp_path)
    assert data.var_names.tolist() == genes and data.var["gene_ids"].tolist()[:4] == ids
    assert account_of(data).genes_left_out == (("of genome mm10", 1),)


@pytest.mark.parametrize(
    "name", ["tissue_positions.csv", "tissue_positions_list.csv", "A1_tissue_positions.csv"]
)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("header", [False, True])
def test_the_content_tells_whether_positions_have_a_header(
    name: str, packed: bool, header: bool, tmp_path: Path
) -> None:
    section = KnownSection()
    folder = write_space_ranger(section, tmp_path)
    (folder / "spatial" / "tissue_positions.csv").unlink()
    path = folder / "spatial" / (name + ".gz" * packed)
    text = section.table.to_csv(index=False, header=header)
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    (data,) = read_sections(folder)
    assert data.obs_names.tolist() == section.table["barcode"].tolist()
    np.testing.assert_array_equal(data.X.toarray(), section.counts)
    assert len(read_spots(path)) == N_SPOTS


def test_columns_of_positions_in_another_order(tmp_path: Path) -> None:
    section = KnownSection()
    folder = write_space_ranger(section, tmp_path)
    table = section.table
    table[[*table.columns[::-1]]].to_csv(folder / "spatial" / "tissue_positions.csv", index=False)
    (data,) = read_sections(folder)
    np.testing.assert_allclose(data.obsm["spatial"], section.xy)


def test_positions_of_another_sample_are_refused(tmp_path: Path) -> None:
    """All samples have the same barcodes; those in tissue tell them apart."""
    section = KnownSection()
    folder = write_space_ranger(section, tmp_path)
    other = KnownSection(in_tissue=np.array([1] * 6 + [0] * 30))
    other.table.to_csv(folder / "spatial" / "tissue_positions.csv", index=False)
    with pytest.raises(SpotsError, match=r"30 of the 36 barcodes .* not of the same sample"):
        read_sections(folder)
    counts = folder / "filtered_feature_bc_matrix.h5"
    with pytest.raises(SpotsError, match="not of the same sample"):
        read_single_section(None, counts, folder / "spatial" / "tissue_positions.csv")


def test_barcodes_without_a_position_are_counted(tmp_path: Path) -> None:
    section = KnownSection()
    folder = write_space_ranger(section, tmp_path)
    section.table.iloc[4:].to_csv(folder / "spatial" / "tissue_positions.csv", index=False)
    (data,) = read_sections(folder)
    assert account_of(data).spots_left_out == (("with counts but no position", 4),)


def geo_files(root: Path, kind: str, names: tuple[str, ...] = ("GSM123_A1", "GSM124_B1")) -> None:
    for i, name in enumerate(names):
        section = KnownSection()
        section.counts = section.counts + i
        counts = write_space_ranger(section, root / "made" / name)
        positions = (counts / "spatial" / "tissue_positions.csv").read_bytes()
        (root / f"{name}_tissue_positions_list.csv.gz").write_bytes(gzip.compress(positions))
        factors = json.dumps({"microns_per_pixel": MPP}).encode()
        (root / f"{name}_scalefactors_json.json.gz").write_bytes(gzip.compress(factors))
        if kind == "h5":
            path = counts / "filtered_feature_bc_matrix.h5"
            shutil.move(path, root / f"{name}_filtered_feature_bc_matrix.h5")
        else:
            write_mtx_files(section, root, f"{name}_", kind)
    shutil.rmtree(root / "made")


@pytest.mark.parametrize("kind", ["h5", "features.tsv.gz", "genes.tsv", "genes.tsv.gz"])
def test_samples_side_by_side_as_in_geo(kind: str, tmp_path: Path) -> None:
    geo_files(tmp_path, kind)
    for name in ("GSM124_B1.tif", "GSM123_A1_tissue_hires_image.png"):
        (tmp_path / name).touch()
    assert [(e.name, e.layout) for e in find_sections(tmp_path)] == [
        ("GSM123_A1", "Space Ranger"),
        ("GSM124_B1", "Space Ranger"),
    ]
    for i, data in enumerate(read_sections(tmp_path)):
        np.testing.assert_array_equal(data.X.toarray(), KnownSection().counts + i)
        np.testing.assert_allclose(data.obsm["spatial"], KnownSection().xy)
        assert data.uns["mpp_origin"] == "Space Ranger's scale factors"
        assert data.uns["mpp"] == MPP
        assert data.uns["image"] == ("", str(tmp_path / "GSM124_B1.tif"))[i]
        assert i or "tissue_hires_image.png is named like" in data.uns["image_note"]
    ending = "filtered_feature_bc_matrix.h5" if kind == "h5" else "matrix.mtx.gz"
    data = read_single_section(
        None, tmp_path / f"GSM124_B1_{ending}", tmp_path / "GSM124_B1_tissue_positions_list.csv.gz"
    )
    np.testing.assert_array_equal(data.X.toarray(), KnownSection().counts + 1)
    assert data.uns["mpp"] == MPP


def test_a_prefixed_matrix_beside_a_plain_spatial_folder(tmp_path: Path) -> None:
    """As 10x offers its samples for download, one of them a folder of its own."""
    folder = write_space_ranger(KnownSection(), tmp_path)
    name = "V1_Breast_filtered_feature_bc_matrix.h5"
    (folder / "filtered_feature_bc_matrix.h5").rename(folder / name)
    (folder / "V1_Breast_image.tif").touch()
    for root in (tmp_path, folder):
        (data,) = read_sections(root)
        assert data.uns["section"] == "V1_Breast" and data.n_obs == N_SPOTS
        assert data.uns["image"] == str(folder / "V1_Breast_image.tif")


def test_genes_tsv_of_cell_ranger_2(tmp_path: Path) -> None:
    section = KnownSection()
    (data,) = read_sections(write_mtx(section, tmp_path, "genes.tsv"))
    np.testing.assert_array_equal(data.X.toarray(), section.counts)
    assert data.var["gene_ids"].tolist() == section.ids


def test_an_h5_of_cell_ranger_2(tmp_path: Path) -> None:
    section = KnownSection()
    path = write_space_ranger(section, tmp_path) / "filtered_feature_bc_matrix.h5"
    with h5py.File(path, "r+") as file:
        file.move("matrix", "GRCh38")
        group = file["GRCh38"]
        group["gene_names"], group["genes"] = group["features/name"], group["features/id"]
        del group["features"]
    counts = read_counts(path)
    assert counts.genes == tuple(section.genes) and counts.ensembl_ids == tuple(section.ids)
    np.testing.assert_array_equal(counts.matrix.toarray(), section.counts)


@pytest.mark.parametrize(
    ("name", "is_taken"),
    [
        ("CytAssist_FFPE_Human_Breast_tissue_image.tif", True),
        ("tissue_image.btf", True),
        ("tissue_fullres_image.png", True),
        ("tissue_hires_image.png", False),
        ("V1_Breast_tissue_lowres_image.png", False),
        ("CytAssist_FFPE_Human_Breast_image.tif", False),
        ("cytassist_image.tiff", False),
        ("V1_detected_tissue_image.jpg", False),
        ("aligned_tissue_image.jpg", False),
        ("V1_aligned_fiducials.jpg", False),
    ],
)
def test_names_of_images_in_full_resolution(name: str, is_taken: bool, tmp_path: Path) -> None:
    folder = write_space_ranger(KnownSection(), tmp_path)
    (folder / name).touch()
    (data,) = read_sections(folder)
    assert data.uns["image"] == (str(folder / name) if is_taken else "")
    if not is_taken:
        assert f"{name} is named like a downsampled one" in data.uns["image_note"]


@pytest.mark.parametrize("inside", ["", "outs", "s1", "s1/outs"])
def test_segmented_cells_only(inside: str, tmp_path: Path) -> None:
    folder = tmp_path / inside / "segmented_outputs"
    folder.mkdir(parents=True)
    write_tenx(folder / "filtered_feature_cell_matrix.h5", [[1]], ["cellid_1-1"], ["A"])
    with pytest.raises(
        SpotsError, match=r"segmented cells only .*copy binned_outputs/square_008um"
    ):
        find_sections(tmp_path)
    with pytest.raises(SpotsError, match="segmented cells only"):
        find_sections(folder)


@pytest.mark.parametrize("names", [("001", "002"), ("1E1", "1E2"), ("1.0", "1"), ("NA", "nan")])
def test_names_of_sections_are_text(names: tuple[str, str], tmp_path: Path) -> None:
    for name in names:
        shutil.move(write_space_ranger(KnownSection(), tmp_path / "made"), tmp_path / name)
    shutil.rmtree(tmp_path / "made")
    path = tmp_path / "patients.csv"
    path.write_text(f"section,patient\n{names[0]},P1\n{names[1]},007\n")
    assert {e.name: e.patient for e in find_sections(tmp_path)} == dict(
        zip(names, ("P1", "007"), strict=True)
    )
    assert read_sections(tmp_path, [names[1]])[0].uns["patient"] == "007"


def test_rows_of_patients_that_match_nothing_are_named(tmp_path: Path) -> None:
    for name in ("A", "B"):
        shutil.move(write_space_ranger(KnownSection(), tmp_path / "made"), tmp_path / name)
    path = tmp_path / "patients.csv"
    path.write_text("section,patient\nA,P1\nb,P2\n")
    with pytest.raises(SpotsError, match=r"names b, which is no section of .*no row for B; write"):
        find_sections(tmp_path)
    path.write_text("section,patient\nA,P1\nB,P1\nA,P2\n")
    with pytest.raises(SpotsError, match="gives section A the patients P1 and P2"):
        find_sections(tmp_path)
    path.write_text("Section;Patient;note\nA;P1;\nB;P1;\nC;P2;\n")
    for data in read_sections(tmp_path):
        assert data.uns["patient"] == "P1"
        assert "patients.csv names C, which is no section here" in account_of(data).notes
    path.write_text("section,patient\nA,P1\n")
    assert "patients.csv has no row for B" in account_of(read_sections(tmp_path)[0]).notes


@pytest.mark.parametrize("names", [["001", "002"], ["1E1", "1E2"], ["10", "11"]])
@pytest.mark.parametrize("ending", [".csv", ".tsv.gz"])
def test_names_of_spots_are_text(names: list[str], ending: str, tmp_path: Path) -> None:
    separator = "," if ending == ".csv" else "\t"
    counts = pd.DataFrame([[1, 2], [3, 4]], index=names, columns=["A", "B"])
    counts.to_csv(tmp_path / f"c{ending}", sep=separator)
    for column in ("barcode", "id", "name"):
        spots = pd.DataFrame({column: names, "x": [10, 20], "y": [30, 40]})
        spots.to_csv(tmp_path / f"s{ending}", sep=separator, index=False)
        data = read_single_section(None, tmp_path / f"c{ending}", tmp_path / f"s{ending}")
        assert data.obs_names.tolist() == names
        assert data.X.toarray().tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("column", ["library_id", "sample", "orig.ident", "Image", "slice"])
@pytest.mark.parametrize("ending", [".csv", ".parquet", ".xlsx"])
def test_several_sections_in_a_table(column: str, ending: str, tmp_path: Path) -> None:
    section = KnownSection()
    table = section.table.assign(**{column: LEFT})
    path = tmp_path / f"spots{ending}"
    if ending == ".csv":
        table.to_csv(path, index=False)
    elif ending == ".xlsx":
        table.to_excel(path, index=False)
    else:
        table.to_parquet(path)
    of_b = np.array(LEFT) == "B"
    with pytest.raises(SpotsError, match=r"holds 2 sections \(A, B\); name one as library"):
        read_spots(path)
    spots = read_spots(path, library="B")
    np.testing.assert_allclose(spots.xy, section.xy[of_b])
    assert spots.names == tuple(table["barcode"][of_b])
    with pytest.raises(SpotsError, match="has no section C; it holds A, B"):
        read_spots(path, library="C")
    counts = pd.DataFrame(section.counts, index=table["barcode"], columns=section.genes)
    counts.to_csv(tmp_path / "counts.csv")
    data = read_single_section(None, tmp_path / "counts.csv", path, "B")
    np.testing.assert_array_equal(data.X.toarray(), section.counts[of_b])


def test_the_library_of_a_table_without_sections_is_refused(tmp_path: Path) -> None:
    (tmp_path / "spots.csv").write_text("id,x,y\na,1,2\nb,3,4\n")
    with pytest.raises(SpotsError, match=r"spots\.csv has no section B; it names no sections"):
        read_spots(tmp_path / "spots.csv", library="B")


@pytest.mark.parametrize("joined", ["{}-{}", "{1}_{0}-1", "{}-1-{}", "{}-1_{}"])
@pytest.mark.parametrize("container", ["h5ad", "csv"])
def test_sections_that_only_barcodes_tell_apart(
    joined: str, container: str, tmp_path: Path
) -> None:
    """As `spaceranger aggr`, Seurat's merge and anndata's concat write them."""
    section = KnownSection()
    data = section.anndata()
    barcodes = [name[:-2] * 2 for name in data.obs_names]
    data.obs_names = [joined.format(b, i % 2 + 1) for i, b in enumerate(barcodes)]
    path = tmp_path / f"s.{container}"
    if container == "h5ad":
        data.write_h5ad(path)
    else:
        section.table.assign(barcode=data.obs_names).to_csv(path, index=False)
    with pytest.raises(SpotsError, match=r"holds 2 sections \(.*1.*, .*2.*\); name one") as error:
        read_spots(path)
    second = str(error.value).split(", ")[1].split(")")[0]
    np.testing.assert_allclose(read_spots(path, library=second).xy, section.xy[1::2])
    data.obs_names = [f"{b}-1" for b in barcodes]
    data.write_h5ad(tmp_path / "one.h5ad")
    assert len(read_spots(tmp_path / "one.h5ad")) == N_SPOTS


@pytest.mark.parametrize(
    ("x", "y"),
    [("x_px", "y_px"), ("X_Pixel", "Y_Pixel"), ("Pixel.X", "Pixel.Y"), ("X", "Y"),
     ("PXL_COL_IN_FULLRES", "PXL_ROW_IN_FULLRES")],
)  # fmt: skip
@pytest.mark.parametrize("name", ["cell_id", "Cell.ID", "spot name", "index", "Unnamed: 0"])
def test_names_of_columns_of_tables(x: str, y: str, name: str, tmp_path: Path) -> None:
    section = KnownSection()
    columns = {name: section.table["barcode"], y: section.xy[:, 1], x: section.xy[:, 0]}
    pd.DataFrame(columns).to_csv(tmp_path / "spots.csv", index=False)
    spots = read_spots(tmp_path / "spots.csv")
    np.testing.assert_allclose(spots.xy, section.xy)
    assert spots.names == tuple(section.table["barcode"])


@pytest.mark.parametrize("column", ["tissue", "under_tissue", "is_in_tissue"])
def test_other_names_of_in_tissue(column: str, tmp_path: Path) -> None:
    section = KnownSection()
    data = section.anndata()
    data.obs = data.obs.drop(columns="in_tissue").assign(**{column: [0] * 5 + [1] * 31})
    data.write_h5ad(tmp_path / "s.h5ad")
    table = data.obs.assign(x=section.xy[:, 0], y=section.xy[:, 1])
    table.to_csv(tmp_path / "s.csv")
    for path in (tmp_path / "s.h5ad", tmp_path / "s.csv"):
        spots = read_spots(path)
        np.testing.assert_allclose(spots.xy, section.xy[5:])
        assert spots.left_out == (("not in tissue", 5),)
    table.assign(**{column: "breast"}).drop(columns="array_row").to_csv(tmp_path / "s.csv")
    if column == "tissue":  # an organ
        assert len(read_spots(tmp_path / "s.csv")) == N_SPOTS


def test_genes_in_rows_are_named(tmp_path: Path) -> None:
    section = KnownSection()
    counts = pd.DataFrame(section.counts.T, index=section.genes, columns=section.table["barcode"])
    counts.to_csv(tmp_path / "counts.csv")
    section.table.to_csv(tmp_path / "spots.csv", index=False)
    with pytest.raises(SpotsError, match=r"counts\.csv has the genes in its rows"):
        read_single_section(None, tmp_path / "counts.csv", tmp_path / "spots.csv")


@pytest.mark.parametrize("column", ["hgnc", "original_gene_symbols", "my names"])
def test_symbols_in_a_column_of_any_name(column: str, tmp_path: Path) -> None:
    section = KnownSection()
    data = section.anndata()
    biotypes = ["protein_coding"] * 3 + ["lncRNA"]
    data.var = pd.DataFrame(
        {"biotype": biotypes, column: section.genes, "mean": [1.0, 2, 3, 4]}, index=section.ids
    )
    data.write_h5ad(tmp_path / "s.h5ad")
    assert read_h5ad_section(tmp_path / "s.h5ad").var_names.tolist() == section.genes
    data.var["other"] = section.genes[::-1]  # which of the two is not known
    data.write_h5ad(tmp_path / "s.h5ad")
    assert read_h5ad_section(tmp_path / "s.h5ad").var_names.tolist() == section.ids


def test_spots_off_tissue_in_tables(tmp_path: Path) -> None:
    section = KnownSection()
    section.in_tissue[:3] = 0
    table = section.table.rename(columns={"pxl_col_in_fullres": "x", "pxl_row_in_fullres": "y"})
    for in_tissue in (section.in_tissue, section.in_tissue > 0):
        for path in (tmp_path / "spots.csv", tmp_path / "spots.parquet"):
            changed = table.assign(in_tissue=in_tissue)
            changed.to_csv(path, index=False) if path.suffix == ".csv" else changed.to_parquet(path)
            spots = read_spots(path)
            assert len(spots) == N_SPOTS - 3 and spots.left_out == (("not in tissue", 3),)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.permutations(range(N_SPOTS)), columns=st.permutations(range(4)), extra=st.booleans())
@pytest.mark.parametrize("container", list(CONTAINERS))
def test_order_and_extra_columns_change_nothing(container, rows, columns, extra, tmp_path_factory):
    class Shuffled(KnownSection):
        def anndata(self) -> anndata.AnnData:
            data = super().anndata()[rows].copy()
            if extra:
                data.obs.insert(0, "cluster", 3)
                data.var.insert(0, "mean", 0.5)
            return data

        @property
        def table(self) -> pd.DataFrame:
            table = super().table
            return table.assign(note="x") if extra and container == "mtx" else table

        @property
        def shapes(self) -> pd.DataFrame:
            """Circles of SpatialData, in an order of their own."""
            shapes = super().shapes.iloc[rows[::-1]]
            return shapes.assign(cluster=3)[["cluster", *shapes.columns[::-1]]] if extra else shapes

    plain = KnownSection()
    section = Shuffled(
        genes=[plain.genes[i] for i in columns],
        ids=[plain.ids[i] for i in columns],
        counts=plain.counts[:, columns],
    )
    data = read_back(CONTAINERS[container], section, tmp_path_factory.mktemp("s"))
    names, genes = plain.table["barcode"].tolist(), plain.genes
    ordered = data[names, genes]
    np.testing.assert_array_equal(ordered.X.toarray(), plain.counts)
    np.testing.assert_allclose(ordered.obsm["spatial"], plain.xy)
    assert ordered.var["gene_ids"].tolist() == plain.ids
    assert data.uns["mpp"] == pytest.approx(MPP)


def test_positions_of_another_prefix_are_not_taken(tmp_path: Path) -> None:
    geo_files(tmp_path, "h5", ("GSM123_A1",))
    path = tmp_path / "GSM123_A1_tissue_positions_list.csv.gz"
    for other, is_taken in (("A1", True), ("GSM124_B1", False)):
        path = path.rename(tmp_path / f"{other}_tissue_positions_list.csv.gz")
        if is_taken:
            assert read_sections(tmp_path)[0].n_obs == N_SPOTS
        else:
            with pytest.raises(SpotsError, match="holds no sections"):
                find_sections(tmp_path)


def test_a_section_is_chosen_on_the_command_line(tmp_path: Path) -> None:
    from napari_dkan.batch.slide_job import SlideJob
    from napari_dkan.cli.option_groups import MeasuredOptions

    section, data = two_libraries()
    path = tmp_path / "s.h5ad"
    data.write_h5ad(path)
    image = tiff(tmp_path / "b.tif", picture())
    of_b = np.array(LEFT) == "B"
    read = MeasuredOptions(image, library="B").read_section(path)
    np.testing.assert_array_equal(read.X.toarray(), section.counts[of_b])
    with pytest.raises(SpotsError, match=r"\(A, B\); name one as library \(--library\)"):
        MeasuredOptions(image).read_section(path)
    job = SlideJob("s.tif", tmp_path / "o.h5ad", spots=path)
    assert "library" not in job.parameters_json()
    job = SlideJob("s.tif", tmp_path / "o.h5ad", spots=path, library="B")
    assert '"library": "B"' in job.parameters_json()


def test_the_window_offers_the_sections_of_a_file(tmp_path: Path) -> None:
    pytest.importorskip("napari")
    from napari_dkan.viewer.panels.quality.data.section_finder import find_candidates

    _, data = two_libraries()
    path, image = tmp_path / "s.h5ad", tmp_path / "he.tif"
    data.write_h5ad(path)
    image.touch()
    for paths in ([path], [path, image]):
        assert [c.name for c in find_candidates(paths)] == ["s A", "s B"]
    geo_files(tmp_path, "h5")
    (tmp_path / "s.h5ad").unlink()
    (candidate,) = find_candidates([tmp_path / "GSM124_B1_filtered_feature_bc_matrix.h5"])
    assert candidate.name == "GSM124_B1"
