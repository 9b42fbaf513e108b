"""Tables as spreadsheets, R, QuPath and Windows write them; regions; checkpoints; few genes."""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import openpyxl
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_dkan.batch.job_list import build_job_list
from napari_dkan.batch.slide_job import SlideJob
from napari_dkan.cli import main
from napari_dkan.errors import CheckpointError, SpotsError
from napari_dkan.expression.gene_species import describe_species
from napari_dkan.expression.readers.discovery import find_sections
from napari_dkan.expression.readers.read_account import account_of
from napari_dkan.expression.readers.single_section import read_single_section
from napari_dkan.expression.tables.count_files import read_counts
from napari_dkan.expression.tables.spot_files import read_spots
from napari_dkan.expression.tables.table_files import read_table
from napari_dkan.model import load_checkpoint
from napari_dkan.samples.bundled_checkpoints import find_bundled_checkpoint
from napari_dkan.spatial.region_files import RegionObjects, read_named_regions, read_regions
from napari_dkan.training.data.measured_section import make_measured_section
from napari_dkan.training.finetuning.training_section import TrainingSectionReader

from .section_files import write_tenx

ROWS = [["name", "x", "y"], ["001", "500.5", "600.25"], ["1E1", "700.5", "-3"]]


def write_rows(path: Path, rows: list[list[str]], kind: str) -> Path:
    """Write rows as one of the forms of a table that people have."""
    if kind == "xlsx":
        return write_xlsx(path.with_suffix(".xlsx"), rows)
    if kind == "parquet":
        frame = pd.DataFrame(rows[1:], columns=rows[0])
        for column in ("x", "y"):
            frame[column] = frame[column].astype(float)
        frame.to_parquet(path.with_suffix(".parquet"))
        return path.with_suffix(".parquet")
    separator = "\t" if kind == "tab" else ";" if "semicolon" in kind else ","
    text = io.StringIO()
    quoting = csv.QUOTE_ALL if kind == "quoted" else csv.QUOTE_MINIMAL
    cells = [[c.replace(".", ",") for c in row] for row in rows] if "decimal" in kind else rows
    csv.writer(text, delimiter=separator, quoting=quoting).writerows(cells)
    content = text.getvalue()
    if kind == "windows lines":
        content = content.replace("\r\n", "\n").replace("\n", "\r\n")
    if kind == "old mac lines":
        content = content.replace("\r\n", "\r")
    if kind == "trailing":
        lines = content.splitlines()
        content = "\n".join([lines[0], *(line + "," for line in lines[1:])]) + "\n"
    if kind == "trailing everywhere":
        content = "".join(line + ",,\n" for line in content.splitlines())
    if kind == "excel sep semicolon":
        content = "sep=;\n" + content
    if kind == "comments":
        content = "# written by R\n\n#\n" + content + "# the end\n"
    if kind == "empty rows":
        content += "\n,,\n,,\n\n"
    encoding = {"utf-8 mark": "utf-8-sig", "utf-16": "utf-16", "utf-16 unmarked": "utf-16-le"}
    data = content.encode(encoding.get(kind, "utf-8"))
    path.write_bytes(gzip.compress(data) if kind == "gzip" else data)
    return path


def write_xlsx(path: Path, rows: list[list[str]]) -> Path:
    """Write numbers as numbers; 001 as 1 in the format 000."""
    book = openpyxl.Workbook()
    sheet = book.active
    for r, row in enumerate(rows, 1):
        for c, cell in enumerate(row, 1):
            target = sheet.cell(r, c)
            if cell.isdigit() and cell.startswith("0") and len(cell) > 1:
                target.value, target.number_format = int(cell), "0" * len(cell)
            else:
                try:
                    target.value = float(cell) if "E" not in cell else cell
                except ValueError:
                    target.value = cell
    book.create_sheet("empty")
    book.save(path)
    return path


KINDS = ["comma", "tab", "semicolon", "semicolon decimal", "quoted decimal", "quoted"]
KINDS += ["windows lines", "old mac lines", "trailing", "trailing everywhere", "comments"]
KINDS += ["excel sep semicolon", "excel sep semicolon decimal", "empty rows", "utf-8 mark"]
KINDS += ["utf-16", "utf-16 unmarked", "gzip", "xlsx", "parquet"]


@pytest.mark.parametrize("kind", KINDS)
def test_spots_are_the_same_in_every_form_of_a_table(tmp_path: Path, kind: str) -> None:
    spots = read_spots(write_rows(tmp_path / "spots.csv", ROWS, kind))
    assert spots.names == ("001", "1E1")
    assert spots.xy.tolist() == [[500.5, 600.25], [700.5, -3]]


@pytest.mark.parametrize("kind", [k for k in KINDS if "decimal" not in k and k != "parquet"])
def test_patients_and_counts_are_the_same_in_every_form(tmp_path: Path, kind: str) -> None:
    table = [["section", "patient"], ["001", "P1"], ["1E1", "007"]]
    found = read_table(write_rows(tmp_path / "patients.csv", table, kind))
    assert found.astype(str).to_numpy().tolist() == table[1:]
    counts = [["", "A", "1", "A"], ["001", "3", "0", "1"], ["1E1", "2", "5", "0"]]
    read = read_counts(write_rows(tmp_path / "counts.csv", counts, kind))
    assert read.spot_names == ("001", "1E1")
    assert read.genes == ("A", "1")
    assert read.matrix.toarray().tolist() == [[4, 0], [2, 5]]


@pytest.mark.parametrize("kind", KINDS)
def test_slide_tables_are_the_same_in_every_form(tmp_path: Path, kind: str) -> None:
    """The table of `batch`: 1E1 is a name, and the decimal comma that of Excel."""
    header = ["slide", "mpp", "spots", "library", "out"]
    if kind == "parquet":
        path = tmp_path / "slides.parquet"
        rows = [["a b.svs", 0.5, "s.h5ad", "001", "a.h5ad"], ["1E1", np.nan, None, None, None]]
        pd.DataFrame(rows, columns=header).to_parquet(path)
    else:
        rows = [["a b.svs", "0.5", "s,h5ad", "001", "a,h5ad"], ["1E1", "", "", "", ""]]
        if "decimal" not in kind:  # which turns every point into a comma
            rows[0] = [cell.replace(",h5ad", ".h5ad") for cell in rows[0]]
        path = write_rows(tmp_path / "slides.csv", [header, *rows], kind)
        if "decimal" in kind:
            path.write_text(path.read_text().replace(",svs", ".svs").replace(",h5ad", ".h5ad"))
    options = SlideJob("", tmp_path / "out", mpp=0.25)
    first, second = build_job_list([str(path)], tmp_path / "out", options).jobs
    assert first == SlideJob(
        str(tmp_path / "a b.svs"),
        tmp_path / "out/a.h5ad",
        mpp=0.5,
        spots=tmp_path / "s.h5ad",
        library="001",
    )
    assert second == replace(options, slide=str(tmp_path / "1E1"), out=tmp_path / "out/1E1.h5ad")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from([k for k in KINDS if k != "parquet"]),
    columns=st.permutations(["name", "x", "y", "cluster"]),
    has_index=st.booleans(),
    data=st.data(),
)
def test_order_further_columns_and_delimiters_change_nothing(
    tmp_path: Path, kind: str, columns: list[str], has_index: bool, data: st.DataObject
) -> None:
    """A permutation, an extra column, a trailing delimiter or an index column change nothing."""
    names = data.draw(
        st.lists(st.text("0123456789EeN.x-", min_size=1, max_size=6), min_size=1, unique=True)
    )
    names = [n for n in names if kind != "xlsx" or not n.isdigit()] or ["a"]
    if "decimal" in kind:
        names = list(dict.fromkeys(n.replace(".", "") or "a" for n in names))
    numbers = st.integers(-99_999, 99_999).map(lambda n: n / 8)
    xy = [[data.draw(numbers), data.draw(numbers)] for _ in names]
    order = data.draw(st.permutations(range(len(names))))
    cells = {"name": names, "cluster": ["2" for _ in names]}
    cells |= {"x": [repr(x) for x, _ in xy], "y": [repr(y) for _, y in xy]}
    if "decimal" in kind and not any(len(c.split(".")[1]) != 3 for v in "xy" for c in cells[v]):
        xy[0][0], cells["x"][0] = 0.5, "0.5"  # a comma is known to be the decimal point
    rows = [list(columns), *([cells[c][i] for c in columns] for i in order)]
    if has_index:
        rows = [["", *rows[0]], *([str(i), *row] for i, row in enumerate(rows[1:]))]
    spots = read_spots(write_rows(tmp_path / "spots.csv", rows, kind))
    assert spots.names == tuple(names[i] for i in order)
    assert spots.xy.tolist() == [xy[i] for i in order]


def test_what_was_skipped_and_converted_is_in_the_account(tmp_path: Path) -> None:
    (tmp_path / "spots.csv").write_text("# R\nname;x;y\na;1,5;2,25\nb;3,5;4,25\n# end\n")
    (tmp_path / "counts.csv").write_text("# R\n,ERBB2,CD74\na,1,2\nb,3,4\n")
    spots = read_spots(tmp_path / "spots.csv")
    notes = (
        "spots.csv: 2 comment lines were skipped",
        "spots.csv: decimal commas were read as points",
    )
    assert spots.notes == spots.take([0]).notes == notes
    data = read_single_section(None, tmp_path / "counts.csv", tmp_path / "spots.csv")
    assert account_of(data).notes == ("counts.csv: 1 comment line was skipped", *notes)


def test_row_names_of_r_have_no_column_name(tmp_path: Path) -> None:
    path = tmp_path / "spots.tsv"
    path.write_text("x\ty\ncell-1\t500.5\t600.25\ncell-2\t7\t8\n")
    assert read_spots(path).names == ("cell-1", "cell-2")
    path.write_text("x\ty\n1\t500.5\t600.25\n2\t7\t8\n")
    spots = read_spots(path)
    assert spots.names == () and spots.xy.tolist() == [[500.5, 600.25], [7, 8]]
    path.write_text("x\ty\n1\t2\n3\t4\t5\n")
    with pytest.raises(SpotsError, match="3 cells in line 3 and 2 names"):
        read_spots(path)


def test_a_comma_that_may_group_digits_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "spots.csv"
    path.write_text("x;y\n1,234;2,345\n3,456;4,567\n")
    with pytest.raises(SpotsError, match=r"1,234 may mean 1234 or 1\.234"):
        read_spots(path)
    path.write_text("x;y\n1,234;2,5\n3,456;4,567\n")
    assert read_spots(path).xy.tolist() == [[1.234, 2.5], [3.456, 4.567]]


def test_the_content_decides_about_the_header_of_positions(tmp_path: Path) -> None:
    header = "barcode,in_tissue,array_row,array_col,pxl_row_in_fullres,pxl_col_in_fullres\n"
    rows = "AAAC-1,1,0,0,100,200\nAAAG-1,0,0,2,100,400\nAAAT-1,1,0,4,100,600\n"
    for name in ("tissue_positions.csv", "tissue_positions_list.csv", "positions.txt"):
        for text in (rows, header + rows):
            (tmp_path / name).write_text(text)
            spots = read_spots(tmp_path / name)
            assert spots.names == ("AAAC-1", "AAAT-1")
            assert spots.xy.tolist() == [[200, 100], [600, 100]]


@pytest.mark.parametrize("mark", ["", "#"])
def test_seurat_coordinates(tmp_path: Path, mark: str) -> None:
    path = tmp_path / "coordinates.csv"
    path.write_text(
        f'{mark}"","tissue","row","col","imagerow","imagecol"\n'
        '"AAAC-1",1,0,0,1000,2000\n"AAAG-1",0,0,2,1000,2200\n"AAAT-1",1,0,4,1000,2400\n'
    )
    spots = read_spots(path)
    assert spots.xy.tolist() == [[2000, 1000], [2400, 1000]]
    assert spots.array_coords.tolist() == [[0, 0], [4, 0]]
    assert spots.names == ("AAAC-1", "AAAT-1") and spots.pitch_um == 100


def test_seurat_coordinates_of_the_downsampled_image_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "coordinates.csv"
    path.write_text("cell,imagerow,imagecol\na,100.25,200.5\nb,100.25,207.5\n")
    with pytest.raises(SpotsError, match=r"7 px apart.*scale = NULL"):
        read_spots(path)


SEURAT5_BARCODES = ["AAACAAGTATCTCCCA-1", "AAACACCAATAACTGC-1", "AAACAGAGCGACTCCT-1"]


def write_seurat5(folder: Path, x: str, y: str, prefix: str = "") -> Path:
    """Write three spots at (2000 + 200 i, 1000 + 10 i), and Space Ranger's file with them."""
    xy = {"col": [2000, 2200, 2400], "row": [1000, 1010, 1020]}
    table = pd.DataFrame({"x": xy[x], "y": xy[y], "cell": [prefix + b for b in SEURAT5_BARCODES]})
    table.to_csv(folder / "coordinates.csv")
    (folder / "spatial").mkdir()
    rows = zip([*SEURAT5_BARCODES, "TTTT-1"], [*xy["row"], 5], [*xy["col"], 6], strict=True)
    (folder / "spatial/tissue_positions_list.csv").write_text(
        "".join(f"{b},1,{i},{i},{row},{col}\n" for i, (b, row, col) in enumerate(rows))
    )
    return folder / "coordinates.csv"


@pytest.mark.parametrize(("x", "y", "what"), [("row", "col", "row"), ("col", "row", "width")])
@pytest.mark.parametrize("prefix", ["", "slice1_"])
def test_seurat5_coordinates_are_placed_by_space_rangers(
    tmp_path: Path, x: str, y: str, what: str, prefix: str
) -> None:
    spots = read_spots(write_seurat5(tmp_path, x, y, prefix))
    assert spots.xy.tolist() == [[2000, 1000], [2200, 1010], [2400, 1020]]
    assert spots.names == tuple(prefix + b for b in SEURAT5_BARCODES)
    assert f"the {what} of the image" in spots.notes[0]


def test_seurat5_coordinates_that_say_nothing_are_refused(tmp_path: Path) -> None:
    path = write_seurat5(tmp_path, "row", "col")
    positions = tmp_path / "spatial/tissue_positions_list.csv"
    positions.write_text(positions.read_text().replace("2200", "999"))
    with pytest.raises(SpotsError, match=r"as Seurat 5 writes them.*no such positions.*imagerow"):
        read_spots(path)
    positions.unlink()
    with pytest.raises(SpotsError, match=r"coordinates\.csv has the columns x, y and cell"):
        read_spots(path)
    path.write_text("x,y,cell\n1,2,aaaacjgk-1\n3,4,cell_2\n")  # not of Visium: x is x
    assert read_spots(path).xy.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("unit", ["µm", "μm", "um", "Âµm"])
@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "utf-16"])
def test_qupath_centroids(tmp_path: Path, unit: str, encoding: str) -> None:
    if unit == "μm" and encoding == "cp1252":
        pytest.skip("Greek letters are not in cp1252")
    path = tmp_path / "measurements.tsv"
    text = f"Image\tObject ID\tCentroid X {unit}\tCentroid Y {unit}\ns.svs\t01\t100\t50.5\n"
    path.write_bytes(text.encode(encoding))
    with pytest.raises(SpotsError, match=r"in micrometres .*--mpp"):
        read_spots(path)
    spots = read_spots(path, mpp=0.5)
    assert spots.xy.tolist() == [[200, 101]] and spots.names == ("01",)
    path.write_bytes(text.replace(unit, "px").encode(encoding))
    assert read_spots(path).xy.tolist() == [[100, 50.5]]


def test_excel_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    path = write_xlsx(tmp_path / "spots.xlsx", ROWS)
    book = openpyxl.load_workbook(path)
    book["empty"]["A1"] = 1
    book.save(path)
    with pytest.raises(SpotsError, match=r"spots\.xlsx has 2 sheets with cells \(Sheet, empty\)"):
        read_spots(path)
    (tmp_path / "old.xls").write_bytes(b"\xd0\xcf\x11\xe0" + bytes(600))
    with pytest.raises(SpotsError, match=r"old\.xls is an old Excel file"):
        read_spots(tmp_path / "old.xls")
    (tmp_path / "cut.xlsx").write_bytes(path.read_bytes()[:900])
    with pytest.raises(SpotsError, match=r"cut\.xlsx is not a readable Excel file"):
        read_spots(tmp_path / "cut.xlsx")


def test_the_content_of_an_excel_file_decides(tmp_path: Path) -> None:
    path = write_xlsx(tmp_path / "spots.xlsx", ROWS).rename(tmp_path / "spots.csv")
    assert read_spots(path).names == ("001", "1E1")


def test_patients_of_sections_with_numbers_as_names(tmp_path: Path) -> None:
    for name in ("001", "1E1", "3"):
        (tmp_path / name).mkdir()
        write_tenx(tmp_path / name / "filtered_feature_bc_matrix.h5", np.ones((1, 1)), ["a"], ["A"])
    (tmp_path / "patients.csv").write_text("section,patient\n001,01\n1E1,P1\n3,NA\n")
    patients = {entry.name: entry.patient for entry in find_sections(tmp_path)}
    assert patients == {"001": "01", "1E1": "P1", "3": "NA"}


@pytest.mark.parametrize("name", ["Patients.csv", "patients.txt", "patients.csv.gz"])
def test_tables_of_patients_of_other_names(tmp_path: Path, name: str) -> None:
    (tmp_path / "001").mkdir()
    write_tenx(tmp_path / "001/filtered_feature_bc_matrix.h5", np.ones((1, 1)), ["a"], ["A"])
    content = b"section,patient\n001,P1\n"
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    assert [entry.patient for entry in find_sections(tmp_path)] == ["P1"]
    (tmp_path / "patients.tsv").write_bytes(content.replace(b",", b"\t"))
    with pytest.raises(SpotsError, match=r"several tables of patients \(.*\); keep one"):
        find_sections(tmp_path)


def write_objects(path: Path, *objects: tuple[str, object, int, int]) -> Path:
    """Write squares from a to b with a type and a class."""
    features = []
    for kind, classification, a, b in objects:
        ring = [[a, a], [b, a], [b, b], [a, b], [a, a]]
        properties = {"objectType": kind, "classification": classification}
        geometry = {"type": "Polygon", "coordinates": [ring]}
        features.append({"type": "Feature", "geometry": geometry, "properties": properties})
    content = json.dumps({"type": "FeatureCollection", "features": features}).encode()
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.geojson", content)
    else:
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("name", ["a.geojson", "a.geojson.gz", "a.zip"])
def test_cores_and_detections_are_regions_only_when_asked_for(tmp_path: Path, name: str) -> None:
    path = write_objects(
        tmp_path / name,
        ("tma_core", None, 0, 2400),
        ("annotation", "Tumor", 500, 1200),
        ("cell", None, 500, 510),
        ("detection", None, 600, 610),
    )
    notes: list[str] = []
    assert read_regions(path, note=notes.append).area == 700**2
    assert notes == [f"{name}: 1 tma_core, 1 cell, 1 detection left out; regions are annotations"]
    assert read_regions(path, objects=RegionObjects.tma_core).area == 2400**2
    assert read_regions(path, objects=RegionObjects.cell).area == 100
    assert read_regions(path, objects=RegionObjects.detection).area == 200
    assert read_regions(path, objects=RegionObjects.all).area == 2400**2
    with pytest.raises(SpotsError, match=r"has no tile; it holds 1 tma_core, 1 annotation"):
        read_regions(path, objects=RegionObjects.tile)


def test_a_file_of_one_type_is_read_and_of_several_refused(tmp_path: Path) -> None:
    core, cell = ("tma_core", None, 0, 2400), ("cell", None, 500, 510)
    assert read_regions(write_objects(tmp_path / "a.geojson", core)).area == 2400**2
    assert read_regions(write_objects(tmp_path / "a.geojson", cell)).area == 100
    with pytest.raises(SpotsError, match=r"no annotation but 1 tma_core, 1 cell; say with"):
        read_regions(write_objects(tmp_path / "a.geojson", core, cell))


@pytest.mark.parametrize(
    "ignored",
    ["Ignore*", {"name": "Ignore*"}, {"names": ["Tumor", "Ignore*"]}, {"name": "Necrosis*"}],
)
def test_ignored_classes_are_cut_out(tmp_path: Path, ignored: object) -> None:
    tumor = ("annotation", "Tumor", 0, 1000)
    hole = ("annotation", ignored, 200, 300)
    path = write_objects(tmp_path / "a.geojson", tumor, hole)
    assert read_regions(path).area == 1000**2 - 100**2
    assert [r.classification for r in read_named_regions(path)] == ["Tumor"]
    with pytest.raises(SpotsError, match=r"classes that QuPath ignores \(.*\*\); give them"):
        read_regions(write_objects(tmp_path / "a.geojson", hole))
    with pytest.raises(SpotsError, match="lie inside its ignored classes"):
        read_regions(write_objects(tmp_path / "a.geojson", hole, ("annotation", "T", 210, 220)))


def test_the_class_region_is_left_out_and_not_cut_out(tmp_path: Path) -> None:
    path = write_objects(
        tmp_path / "a.geojson",
        ("annotation", "Region*", 0, 1000),
        ("annotation", "Tumor", 500, 600),
    )
    assert read_regions(path).area == 100**2


@pytest.mark.parametrize(
    "prefix",
    ["", "model.", "module.", "model.module.", "model.module._orig_mod.", "_orig_mod.module."],
)
def test_wrapped_networks_are_imported(parity_dir: Path, tmp_path: Path, prefix: str) -> None:
    from napari_dkan.model import convert_published

    content = torch.load(parity_dir / "official.ckpt", weights_only=False)
    names = [name.removeprefix("model.") for name in content["state_dict"]]
    tensors = list(content["state_dict"].values())
    content["state_dict"] = {prefix + n: t for n, t in zip(names, tensors, strict=True)}
    torch.save(content, tmp_path / "wrapped.ckpt")
    others = (parity_dir / "genes.npy", parity_dir / "gene_features.pt")
    plain = convert_published(parity_dir / "official.ckpt", *others, tmp_path / "a.safetensors")
    wrapped = convert_published(tmp_path / "wrapped.ckpt", *others, tmp_path / "b.safetensors")
    expected, found = plain.network.state_dict(), wrapped.network.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    content["state_dict"] |= {f"model.{n}": t.clone() for n, t in zip(names, tensors, strict=True)}
    content["state_dict"] |= {f"module.{n}": t.clone() for n, t in zip(names, tensors, strict=True)}
    torch.save(content, tmp_path / "wrapped.ckpt")
    with pytest.raises(CheckpointError, match=r"wrapped\.ckpt holds the tensor .* of two networks"):
        convert_published(tmp_path / "wrapped.ckpt", *others, tmp_path / "b.safetensors")


@pytest.mark.parametrize(
    ("names", "species"),
    [
        (["ACTB", "C1orf112", "HLA-A", "7SK"], ""),
        (["Actb", "Gapdh", "H2-K1", "mt-Co1", "Rps4x"], "mouse or rat genes (capitalised)"),
        (["actb1", "gapdh", "si.dkey"], "genes of zebrafish or another species (lower case)"),
        (["ENSMUSG00000064842", "ENSMUSG00000051951"], "mouse genes"),
        (["ENSG00000141736.9", "ENSG00000141736"], ""),
        ([], ""),
    ],
)
def test_names_of_genes_tell_the_species(names: list[str], species: str) -> None:
    assert describe_species(names) == species


def mouse_section(shared: list[str], panel: list[str], title: bool = True) -> ad.AnnData:
    genes = [*shared, *(g.capitalize() if title else f"OTHER{i}" for i, g in enumerate(panel))]
    data = ad.AnnData(np.ones((9, len(genes)), np.float32), var=pd.DataFrame(index=genes))
    data.obs["array_col"], data.obs["array_row"] = np.tile(range(3), 3), np.repeat(range(3), 3)
    data.obsm["spatial"] = data.obs[["array_col", "array_row"]].to_numpy() * 200.0
    data.uns["section"] = "M1"
    return data


def test_a_section_of_another_species_is_refused() -> None:
    checkpoint = load_checkpoint(find_bundled_checkpoint("her2-breast"))
    panel = list(checkpoint.panel.symbols)
    data = mouse_section(panel[:3], panel[3:])
    n_agree = len(set(data.var_names) & set(panel))  # C3 is one without a small letter
    expected = (
        rf"M1 measures {n_agree} of the checkpoint's 250 genes .*; its own look like mouse or rat "
        r"genes \(capitalised\), such as .*--few-genes"
    )
    with pytest.raises(SpotsError, match=expected):
        make_measured_section(data, checkpoint)
    assert len(make_measured_section(data, checkpoint, few_genes=True).panel) == n_agree
    with pytest.raises(SpotsError, match=expected):
        TrainingSectionReader(checkpoint).read(data, checkpoint.panel)
    data.var["gene_ids"] = [f"ENSMUSG{i:011d}" for i in range(data.n_vars)]
    data.var_names = [name.upper() + "x" * (i > 2) for i, name in enumerate(data.var_names)]
    with pytest.raises(SpotsError, match="its own look like mouse genes, such as"):
        make_measured_section(data, checkpoint)
    data = mouse_section(panel[:25], panel[25:])
    assert len(make_measured_section(data, checkpoint).panel) >= 25
    data = mouse_section(panel[:3], panel[3:], title=False)  # a small panel of the same species
    assert len(make_measured_section(data, checkpoint).panel) == 3


@pytest.mark.parametrize("command", ["evaluate", "report", "finetune"])
def test_commands_refuse_few_genes(
    command: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    panel = list(load_checkpoint(find_bundled_checkpoint("her2-breast")).panel.symbols)
    data = mouse_section(panel[:3], panel[3:])
    data.uns["image"] = ""
    data.write_h5ad(tmp_path / "s.h5ad")
    Image.fromarray(np.full((600, 600, 3), 200, np.uint8)).save(tmp_path / "s.png")
    out = {"evaluate": "o.json", "report": "o.html", "finetune": "o.safetensors"}[command]
    files = ["--data", str(tmp_path / "s.h5ad")]
    if command != "finetune":
        files = ["--counts", str(tmp_path / "s.h5ad"), "--image", str(tmp_path / "s.png")]
    arguments = ["napari-dkan", command, *files, "--out", str(tmp_path / out)]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code != 0
    error = capsys.readouterr().err
    assert "look like mouse or rat genes" in error and "--few-genes" in error
