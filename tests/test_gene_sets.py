"""Gene sets: GMT files, and comparable scores of measured and predicted values."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_dkan.errors import GeneError, SpotsError
from napari_dkan.expression.panel import Gene, Panel
from napari_dkan.quality.gene_sets import (
    HALLMARK_FILE,
    GeneSet,
    define_gene_set_scores,
    load_hallmark_sets,
    read_gmt,
    score_gene_sets,
)

PANEL = Panel.from_symbols(f"G{i}" for i in range(60))


def test_hallmark_sets_are_part_of_the_package(data_dir: Path) -> None:
    sets = load_hallmark_sets()
    assert len(sets) == 50 and sets[0].name == "HALLMARK_TNFA_SIGNALING_VIA_NFKB"
    assert {s.name: len(s.genes) for s in sets}["HALLMARK_P53_PATHWAY"] == 200
    assert sets == read_gmt(data_dir / "genes" / "hallmark.v7.0.symbols.gmt")
    about = (HALLMARK_FILE.parent / "README.md").read_text()
    assert "CC-BY-4.0" in about and "Broad Institute" in about and "Liberzon" in about


_word = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1).filter(
    lambda w: "," not in w and not w.startswith("#")
)


@given(
    st.lists(
        st.tuples(_word, st.lists(_word, min_size=1, unique=True)),
        min_size=1,
        unique_by=lambda s: s[0],
    ),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
)
def test_gmt_round_trip(tmp_path_factory, sets, end, packed) -> None:
    lines = ["# a note", *("\t".join([n, "about", *genes, ""]) for n, genes in sets), ""]
    text = ("\ufeff" + end.join(lines)).encode()
    file = tmp_path_factory.getbasetemp() / "any.gmt"
    file.write_bytes(gzip.compress(text) if packed else text)
    assert read_gmt(file) == tuple(GeneSet(n, tuple(genes)) for n, genes in sets)


@given(st.binary(max_size=400))
def test_any_bytes_give_sets_or_an_error(tmp_path_factory, data) -> None:
    file = tmp_path_factory.getbasetemp() / "odd.gmt"
    for content in (data, b"\x1f\x8b" + data, gzip.compress(data)[:-3]):
        file.write_bytes(content)
        try:
            found = read_gmt(file)
        except GeneError:
            continue
        assert found and all(s.name and s.genes for s in found)


def test_bad_files(tmp_path: Path) -> None:
    file = tmp_path / "a.gmt"
    with pytest.raises(GeneError, match="no file"):
        read_gmt(file)
    with pytest.raises(GeneError, match="not a readable GMT"):
        read_gmt(tmp_path)
    file.write_text("SET about A B\n")
    with pytest.raises(GeneError, match="a line per set with tabs"):
        read_gmt(file)
    file.write_text("SET\tabout\tA\nSET\tabout\tB\n")
    with pytest.raises(GeneError, match="names the set SET twice"):
        read_gmt(file)
    file.write_text("SET\tabout\tA,1.0\tA,1.0\tB,0.5\n")  # with the weights of Enrichr
    assert read_gmt(file)[0].genes == ("A", "B")


def test_paired_values_share_control_genes() -> None:
    random = np.random.default_rng(0)
    measured = random.gamma(2, 0.5, (80, 60)) + np.linspace(0, 3, 60)
    up = np.arange(2, 26, 3)  # of the lower half
    active = random.uniform(0, 2, 80)
    measured[:, up] += active[:, None]
    predicted = measured + random.uniform(-2, 2, 60)  # other levels, so other control genes
    one = GeneSet("UP", tuple(PANEL.symbols[i] for i in up))
    small = GeneSet("SMALL", ("G1", "g2", "NONE"))
    m = score_gene_sets(measured, PANEL, [one, small], paired_values=predicted)
    p = score_gene_sets(predicted, PANEL, [one, small], paired_values=measured)
    assert m.names == ("UP",) and m.scored_genes["UP"] == one.genes and m.scores.shape == (80, 1)
    assert m.skip_reasons == {"SMALL": "2 of its 3 genes are in the panel; it takes 5"}
    assert np.corrcoef(m.scores[:, 0], active)[0, 1] > 0.8
    # The level of a gene cancels between spots only with the same control genes.
    assert np.ptp(p.scores - m.scores) < 1e-5
    alone = score_gene_sets(predicted, PANEL, [one])
    assert np.ptp(alone.scores - score_gene_sets(measured, PANEL, [one]).scores) > 1e-2
    again = score_gene_sets(measured, PANEL, [one], paired_values=predicted)
    assert np.array_equal(again.scores, m.scores)


@settings(max_examples=15)
@given(st.integers(0, 2**20), st.integers(30, 300))
def test_scores_are_those_of_scanpy(seed, n_genes) -> None:
    """The genes and controls that are chosen once give scanpy's scores on any map."""
    import anndata
    import pandas as pd
    import scanpy

    random = np.random.default_rng(seed)
    panel = Panel.from_symbols(f"G{i}" for i in range(n_genes))
    values = random.gamma(2, 0.5, (12, n_genes)) + random.uniform(0, 4, n_genes)
    genes = random.choice(panel.symbols, random.integers(5, 20), replace=False).tolist()
    one = GeneSet("HALLMARK_ONE", (*genes, "NONE", "nor this"))
    scores, skipped = define_gene_set_scores([one], panel, values.mean(axis=0))
    score = scores["HALLMARK_ONE"]
    assert not skipped and score.symbol == "ONE score" and score.missing == ("NONE", "nor this")
    assert set(score.genes) == set(genes) and not set(score.controls) & set(genes)
    data = anndata.AnnData(values, var=pd.DataFrame(index=list(panel.symbols)))
    n_bins = int(np.clip(round(n_genes / 25) + 1, 2, 25))
    scanpy.tl.score_genes(data, genes, ctrl_size=n_genes, n_bins=n_bins)
    found = score.combine(values[:, score.columns(panel)])
    assert np.allclose(found, data.obs["score"], atol=1e-6)
    # A tile's score does not depend on the other tiles of the map.
    assert np.allclose(score.combine(values[:3, score.columns(panel)]), found[:3])


def test_sets_that_cannot_be_scored() -> None:
    values = np.random.default_rng(0).normal(size=(20, 60))
    whole = GeneSet("ALL", PANEL.symbols)
    five = GeneSet("FIVE", PANEL.symbols[:5])
    found = score_gene_sets(values, PANEL, [whole, five])
    assert (
        found.names == ("FIVE",) and "no other genes of similar level" in found.skip_reasons["ALL"]
    )
    with pytest.raises(GeneError, match="None of the 1 gene sets has 5 genes"):
        score_gene_sets(values, PANEL, [GeneSet("X", ("A", "B"))])
    values[0, 0] = np.nan
    with pytest.raises(SpotsError, match="no value for some gene"):
        score_gene_sets(values, PANEL, [five])
    old = Panel((*(Gene(f"N{i}", aliases=(f"OLD{i}", "BOTH")) for i in range(6)), *PANEL.genes))
    names = ("old0", "OLD1", "N2", "n3", "OLD4", "BOTH", "N2")
    found = score_gene_sets(np.ones((9, 66)), old, [GeneSet("A", names)])
    assert found.scored_genes["A"] == ("N0", "N1", "N2", "N3", "N4")
    assert np.isfinite(found.scores).all()
