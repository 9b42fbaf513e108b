"""Sections, spot files, labels and gene tables, on the real study."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from napari_dkan.errors import SpotsError
from napari_dkan.expression.array_geometry import fit_mpp, mpp_from_spots
from napari_dkan.expression.label_scale import LabelScale, labels_from_section
from napari_dkan.expression.panel import Panel, annotate_panel, read_panel
from napari_dkan.expression.readers.layouts.her2st_sections import read_her2st_section
from napari_dkan.expression.tables.spot_files import read_spots
from napari_dkan.spatial.spots import Spots


@pytest.fixture(scope="module")
def c3(data_dir: Path):
    return read_her2st_section(data_dir, "C3")


@pytest.fixture(scope="module")
def panel(data_dir: Path) -> Panel:
    return annotate_panel(
        read_panel(data_dir / "genes" / "panel_her2st_250.txt"),
        data_dir / "genes" / "human_gene_descriptions.tsv.gz",
        data_dir / "genes" / "hgnc_alias_to_approved.tsv.gz",
    )


def test_a_section_holds_counts_positions_and_the_pixel_size(c3) -> None:
    assert c3.n_obs == 180
    assert c3.uns["spots_without_counts"] == 2
    assert c3.uns["mpp"] == pytest.approx(0.688, abs=0.002)
    assert c3.uns["mpp_origin"] == "spot array"
    assert Path(c3.uns["image"]).name == "5714_HE_BT_D1.jpg"
    spot = c3["22x6"]
    assert spot.obsm["spatial"][0].tolist() == [6049.83, 1465.85]
    assert (spot.obs["array_col"].item(), spot.obs["array_row"].item()) == (22, 6)
    assert (c3.X.data == np.rint(c3.X.data)).all() and c3.X.data.min() >= 1


def test_labels_are_those_of_the_method(c3, panel: Panel) -> None:
    labels = labels_from_section(c3, panel, LabelScale())
    assert labels.dropped_spots == ("11x17",)
    assert labels.values.shape == (179, 250)

    # one spot by hand: its present neighbours on the array, each with its own library size
    counts = c3[:, list(panel.symbols)].X.toarray().astype(float)
    x, y = 11, 16  # a neighbour of the dropped spot
    near = []
    for name, row in zip(c3.obs_names, counts, strict=True):
        a, b = map(int, name.split("x"))
        if abs(a - x) <= 1 and abs(b - y) <= 1 and row.sum() > 0:
            near.append(np.log10(row / row.sum() * 10_000 + 1))
    got = labels.values[list(c3.obs_names[labels.rows]).index(f"{x}x{y}")]
    np.testing.assert_allclose(got, np.mean(near, axis=0), rtol=1e-5)


def test_a_panel_gene_that_was_not_measured_is_named(c3) -> None:
    with pytest.raises(SpotsError, match=r"C3 does not measure 1 .*NOTAGENE"):
        labels_from_section(c3, Panel.from_symbols(["ERBB2", "NOTAGENE"]), LabelScale())


def test_the_array_fit_survives_misplaced_spots_and_a_turned_slide() -> None:
    rng = np.random.default_rng(0)
    array = np.array([(x, y) for x in range(12) for y in range(15)], dtype=float)
    angle = 0.7
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    pixels = (array * [1, -1]) @ turn * 290 + 4000 + rng.normal(0, 20, (len(array), 2))
    pixels[:9] += rng.uniform(-3000, 3000, (9, 2))
    assert fit_mpp(array, pixels, 200.0) == pytest.approx(200 / 290, rel=0.005)
    with pytest.raises(SpotsError, match="not all in one line"):
        fit_mpp(array[:10], pixels[:10], 200.0)


def test_spot_files_of_every_kind(data_dir: Path, tmp_path: Path) -> None:
    st = read_spots(data_dir / "her2st" / "ST-spotfiles" / "C3_selection.tsv")
    assert len(st) == 182 and st.names[0] == "22x5"
    assert (st.pitch_um, st.diameter_um) == (200.0, 100.0)
    assert mpp_from_spots(st) == pytest.approx(0.687, abs=0.005)

    table = read_spots(data_dir / "her2st" / "crop" / "C3_crop_selection.tsv")
    h5ad = read_spots(data_dir / "her2st" / "crop" / "C3_crop.h5ad")
    assert len(h5ad) == len(table) == 67
    order = [h5ad.names.index(n) for n in table.names]
    np.testing.assert_allclose(h5ad.take(order).xy, table.xy, atol=0.01)

    (visium,) = (data_dir / "visium").rglob("tissue_positions*.csv")
    spots = read_spots(visium)
    assert (spots.pitch_um, spots.diameter_um) == (100.0, 55.0)
    # a hexagonal array: neighbours in a row are two columns apart and 100 um
    assert spots.array_coords is not None
    row_of = {tuple(cell): i for i, cell in enumerate(spots.array_coords.tolist())}
    one, same = next((i, row_of[x + 2, y]) for (x, y), i in row_of.items() if (x + 2, y) in row_of)
    pitch_px = np.linalg.norm(spots.xy[same] - spots.xy[one])
    assert mpp_from_spots(spots) == pytest.approx(100 / pitch_px, rel=0.02)

    plain = tmp_path / "mine.csv"
    plain.write_text("id,x,y\na,10.5,20\nb,30,40\n")
    spots = read_spots(plain)
    assert spots.xy.tolist() == [[10.5, 20.0], [30.0, 40.0]] and spots.names == ("a", "b")
    assert spots.array_coords is None and mpp_from_spots(spots) is None


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("gone.csv", None, "does not exist"),
        ("empty.csv", b"", "not a readable table"),
        ("binary.csv", bytes(range(256)) * 9, "not a readable table|no columns x and y"),
        ("broken.tsv.gz", b"\x1f\x8b\x08garbage", "not a readable table"),
        ("header.csv", b"x,y\n", "no spots"),
        ("columns.csv", b"a,b\n1,2\n", "no columns x and y .*a, b"),
        ("text.csv", b"x,y\n1,2\n3,four\n", "column y holds no number in data row 2"),
        ("nan.csv", b"x,y\n1,\n", "column y holds no number"),
        ("twice.tsv", b"x\ty\tpixel_x\tpixel_y\n1\t1\t5\t5\n1\t1\t9\t9\n", "two spots at .* 1x1"),
        ("tissue_positions_list.csv", b"a,1,2\n", "3 columns where Space Ranger writes 6"),
        ("broken.h5ad", b"not hdf5", "not a readable h5ad"),
    ],
)
def test_bad_spot_files_get_one_sentence(
    tmp_path: Path, name: str, content: bytes | None, says: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SpotsError, match=says) as caught:
        read_spots(path)
    assert name in str(caught.value)


def _write_section(root: Path, counts: str) -> None:
    for folder in ("ST-cnts", "ST-spotfiles", "ST-imgs/Z/Z1"):
        (root / folder).mkdir(parents=True)
    (root / "ST-imgs/Z/Z1/he.jpg").touch()
    with gzip.open(root / "ST-cnts/Z1.tsv.gz", "wt") as file:
        file.write(counts)
    rows = [f"{x}\t{y}\t{x}\t{y}\t{x * 290}\t{y * 290}\t1" for x in (1, 2) for y in (1, 2)]
    header = "x\ty\tnew_x\tnew_y\tpixel_x\tpixel_y\tselected"
    (root / "ST-spotfiles/Z1_selection.tsv").write_text("\n".join([header, *rows]) + "\n")


@pytest.mark.parametrize(
    ("counts", "says"),
    [
        ("\tA\tB\n1x1\t1\t-2\n", "negative or missing"),
        ("\tA\tB\n1x1\t1\t\n", "negative or missing"),
        ("\tA\tB\n1x1\t1\tmany\n", "something other than counts"),
        ("\tA\tB\n1x1\t1\t2\n1x1\t1\t2\n", "two rows for spot 1x1"),
        ("\tA\tB\nspot\t1\t2\n", "spot names like 10x12"),
        ("\tA\tB\n9x9\t1\t2\n", "no spot in common"),
    ],
)
def test_bad_counts_get_one_sentence(tmp_path: Path, counts: str, says: str) -> None:
    _write_section(tmp_path, counts)
    with pytest.raises(SpotsError, match=says):
        read_her2st_section(tmp_path, "Z1")


def test_a_missing_section_or_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpotsError, match=r"no counts of section Z1"):
        read_her2st_section(tmp_path, "Z1")
    _write_section(tmp_path, "\tA\n1x1\t1\n")
    assert read_her2st_section(tmp_path, "Z1").uns["mpp"] == pytest.approx(200 / 290)
    (tmp_path / "ST-imgs/Z/Z1/he.jpg").unlink()
    with pytest.raises(SpotsError, match="holds no image"):
        read_her2st_section(tmp_path, "Z1")


def test_panel_genes_are_found_by_old_and_new_names(panel: Panel) -> None:
    erbb2 = panel.genes[panel.row("HER2")]
    assert erbb2.symbol == "ERBB2"
    assert erbb2.ensembl == "ENSG00000141736"
    assert erbb2.name == "erb-b2 receptor tyrosine kinase 2"
    # the panel spells this one as the study did; its approved symbol finds it too
    assert panel.genes[panel.row("ELOB")].symbol == "TCEB2"
    assert sum(bool(g.ensembl) for g in panel.genes) == 249  # AP000769.1 has no entry


def test_bad_panels_and_tables(tmp_path: Path) -> None:
    with pytest.raises(SpotsError, match="cannot be read as a panel"):
        read_panel(tmp_path / "none.txt")
    (tmp_path / "twice.txt").write_text("ERBB2\nERBB2\n")
    with pytest.raises(SpotsError, match="ERBB2 twice"):
        read_panel(tmp_path / "twice.txt")
    (tmp_path / "plain.gz").write_text("symbol\n")
    with pytest.raises(SpotsError, match="gzipped gene table"):
        annotate_panel(Panel.from_symbols(["A"]), tmp_path / "plain.gz", tmp_path / "plain.gz")


def test_too_few_spots_tell_no_pixel_size() -> None:
    spots = Spots(np.zeros((3, 2)), np.zeros((3, 2), dtype=int), pitch_um=200.0)
    assert mpp_from_spots(spots) is None
