"""Sections as people have them: the same spots, counts and genes from every container."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from napari_dkan.errors import SpotsError
from napari_dkan.expression.readers.count_files import read_counts
from napari_dkan.expression.readers.discovery import find_sections, read_sections
from napari_dkan.expression.readers.h5ad_sections import read_h5ad_section
from napari_dkan.expression.readers.read_account import account_of
from napari_dkan.expression.readers.single_section import read_single_section
from napari_dkan.expression.readers.spot_files import read_spots

from .known_section import CONTAINERS, MPP, N_SPOTS, KnownSection, Writer, read_back

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
