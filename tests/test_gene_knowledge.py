"""Which gene a name means, and what is written about it, from tables alone."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_dkan.errors import SpotsError
from napari_dkan.expression.knowledge.gene_records import (
    GeneTable,
    GeneTableEntry,
    gene_table_paths,
    read_gene_table,
    record_from_table,
)
from napari_dkan.expression.panel import annotate_panel_from_folder, read_panel

PANELS = ("her2st", "skin", "stnet")


@pytest.fixture(scope="module")
def table(data_dir: Path) -> GeneTable:
    return read_gene_table(*gene_table_paths(data_dir / "genes"), summaries=True)


@pytest.fixture(scope="module")
def small() -> GeneTable:
    genes = [
        GeneTableEntry("PSAP", "ENSG1", "prosaposin", "5660", "protein_coding", "Makes saposins."),
        GeneTableEntry(
            "SFTPA1", "ENSG2", "surfactant protein A1", "653509", "protein_coding", "Lung."
        ),
        GeneTableEntry("H3-3B", "ENSG3", "H3.3 histone B", "3021", "protein_coding", "A histone."),
        GeneTableEntry("H3F3B", "", "H3 histone, family 3B", "3021", "", "A histone."),
        GeneTableEntry("FLNB", "ENSG4", "filamin B", "2317", "protein_coding"),
        GeneTableEntry("BAGE", "", "B melanoma antigen", "574", "", "An antigen."),
        GeneTableEntry("ONE", "ENSG5", "one", "7", "", "First."),
        GeneTableEntry("OTHER", "ENSG6", "other", "7", "", "First."),
    ]
    owners = {"SAP1": ("PSAP",), "PSP": ("PSAP", "SFTPA1"), "GONE": ("NOT-THERE",)}
    return GeneTable({gene.symbol: gene for gene in genes}, owners, "small")


@pytest.mark.parametrize(
    ("name", "approved", "how"),
    [
        ("PSAP", "PSAP", "approved"),
        ("ENSG1", "PSAP", "ensembl"),
        ("ENSG1.14", "PSAP", "ensembl"),
        ("SAP1", "PSAP", "alias"),
        ("H3F3B", "H3-3B", "renamed"),  # by the list of renamed genes and by the Entrez id
        ("BAGE", "BAGE", "approved"),
        ("PSP", "", "ambiguous"),
        ("GONE", "", "unknown"),
        ("Psap", "", "unknown"),  # the mouse's
        ("", "", "unknown"),
        ("ENSG", "", "unknown"),
    ],
)
def test_a_name_means_one_gene_or_none(small: GeneTable, name: str, approved: str, how: str):
    record = record_from_table(name, small)
    assert (record.symbol, record.approved, record.match) == (name, approved, how)
    if how == "approved" and name != "BAGE":
        assert not record.note
    else:
        assert record.note  # whatever is not plain is said
    if not approved:
        assert (record.text, record.text_from, record.source) == (name, "symbol", "")


def test_what_is_not_plain_is_said(small: GeneTable) -> None:
    assert "alias of PSAP, SFTPA1" in record_from_table("PSP", small).note
    assert "PSAP is written in capitals" in record_from_table("Psap", small).note
    assert "doubtful: the table gives 7 to OTHER" in record_from_table("ONE", small).note
    bare = record_from_table("FLNB", small)
    assert bare.text_from == "name" and bare.text == "FLNB, filamin B. Gene type: protein coding."
    assert record_from_table("PSAP", small).text == "PSAP, prosaposin. Makes saposins."


@given(st.text(max_size=12))
def test_no_name_is_guessed(name: str) -> None:
    genes = {
        "ERBB2": GeneTableEntry("ERBB2", "ENSG00000141736", "erb-b2", "2064", "", "A receptor.")
    }
    record = record_from_table(name, GeneTable(genes, {"HER2": ("ERBB2",)}))
    wanted = name == "HER2" or name == "ERBB2" or name.split(".")[0] == "ENSG00000141736"
    assert bool(record.approved) == wanted


def test_the_published_mix_ups_are_not_repeated(data_dir: Path, table: GeneTable) -> None:
    """Entrez ids of the published knowledge base, where they differ from ours: all its errors."""
    with gzip.open(data_dir / "genes" / "dkan_gene_knowledge.json.gz", "rt") as file:
        published = json.load(file)
    wrong = {}
    for entries in published.values():
        for entry in entries:
            record = record_from_table(entry["symbol"], table)
            if entry["gene_id"] and record.entrez and str(entry["gene_id"]) != record.entrez:
                wrong[entry["symbol"]] = (entry["name"], record.approved, record.name)
    assert wrong["PSAP"] == ("surfactant protein A1", "PSAP", "prosaposin")
    assert wrong["H3-3B"] == ("H3.3 histone A", "H3-3B", "H3.3 histone B")
    assert wrong["KRT6C"] == ("keratin 6A", "KRT6C", "keratin 6C")
    assert wrong["DSC3"] == ("desmocollin 2", "DSC3", "desmocollin 3")
    assert wrong["FLG"] == ("fibroblast growth factor receptor 1", "FLG", "filaggrin")
    # the one where the table is at fault gives itself away
    wrong.pop("LGALS7B")
    assert "doubtful" in record_from_table("LGALS7B", table).note
    assert all(theirs != ours for theirs, _, ours in wrong.values())
    assert all(approved == symbol for symbol, (_, approved, _) in wrong.items())


@pytest.mark.parametrize(
    ("symbol", "approved", "entrez", "says"),
    [
        ("PSAP", "PSAP", "5660", "saposins A, B, C, and D"),
        ("H3-3B", "H3-3B", "3021", "Histones are basic nuclear proteins"),
        ("H3F3B", "H3-3B", "3021", "Histones are basic nuclear proteins"),
        ("KRT6C", "KRT6C", "286887", "Keratins are intermediate filament proteins"),
        ("DSC3", "DSC3", "1825", "desmocollin subfamily"),
        ("HER2", "ERBB2", "2064", "epidermal growth factor"),
        ("ENSG00000141736.14", "ERBB2", "2064", "epidermal growth factor"),
        ("AARS", "AARS1", "16", "tRNA"),
    ],
)
def test_genes_that_were_confused(
    table: GeneTable, symbol: str, approved: str, entrez: str, says: str
) -> None:
    record = record_from_table(symbol, table)
    assert (record.approved, record.entrez) == (approved, entrez)
    assert record.text_from == "summary" and says in record.text
    assert record.text.startswith(f"{approved}, {record.name}. ")


def test_all_panels_are_resolved(data_dir: Path, table: GeneTable) -> None:
    left = {}
    for name in PANELS:
        panel = read_panel(data_dir / "genes" / f"panel_{name}_250.txt")
        records = [record_from_table(symbol, table) for symbol in panel.symbols]
        left[name] = [r.symbol for r in records if not r.approved]
        assert sum(r.text_from == "summary" for r in records) >= 212
        assert all(r.approved == r.symbol for r in records if r.match == "approved")
        # the panels' annotation and the descriptions come from one resolver
        annotated = annotate_panel_from_folder(panel, data_dir / "genes")
        assert [g.ensembl for g in annotated.genes] == [r.ensembl for r in records]
    # two clones without a record; nothing else
    assert left == {"her2st": ["AP000769.1"], "skin": ["AC090498.1"], "stnet": []}


def test_bad_tables_are_named(tmp_path: Path) -> None:
    header = "symbol\tensembl_id\tname\tentrez_id\tbiotype\trefseq_summary\n"
    file = tmp_path / "genes.tsv"
    file.write_text("symbol\tname\nA\ta\n")
    with pytest.raises(SpotsError, match="needs the columns symbol, ensembl_id, name, entrez_id"):
        read_gene_table(file, summaries=True)
    file.write_text(header + "A\tENSG1\tone\nA\tENSG2\ttwo\textra\tx\ty\tz\n")
    with pytest.raises(SpotsError, match="describes A twice"):
        read_gene_table(file)
    file.write_text(header + "A\tENSG1\tone\n")  # a short line is a gene of which less is known
    assert read_gene_table(file).genes["A"] == GeneTableEntry("A", "ENSG1", "one")
    whole = gzip.compress((header + "A\tENSG1\tone\n" * 50).encode())
    for damaged in (whole[:40], whole[:30] + b"\xff" * 8 + whole[38:], b"", b"\x1f\x8b"):
        broken = tmp_path / "broken.tsv.gz"
        broken.write_bytes(damaged)
        with pytest.raises(SpotsError, match=r"broken.tsv.gz"):
            read_gene_table(broken)
