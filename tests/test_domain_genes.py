"""Genes of spatial domains: against the rest of the slide, and in files."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from napari_dkan.quality.domain_genes import (
    DomainGenes,
    compare_domains,
    write_domain_genes,
    write_domain_tiles,
)

LABELS = np.array([1, 1, 1, 1, 2, 2, 2, 3, 3])
SYMBOLS = "UP1", "FLAT", "UP2", "NOISE"


@pytest.fixture(scope="module")
def values() -> np.ndarray:
    table = np.random.default_rng(2).normal(size=(len(LABELS), 4))
    table[:, 0] += 5 * (LABELS == 1)
    table[:, 1] = 2
    table[:, 2] += 5 * (LABELS == 2)
    return table


@pytest.fixture(scope="module")
def genes(values) -> DomainGenes:
    return compare_domains(values, SYMBOLS, LABELS)


def test_each_domain_is_compared_with_all_other_tiles(values, genes: DomainGenes) -> None:
    inside, outside = values[LABELS == 2, 2], values[LABELS != 2, 2]
    squares = ((inside - inside.mean()) ** 2).sum() + ((outside - outside.mean()) ** 2).sum()
    deviation = np.sqrt(squares / (len(LABELS) - 2))
    assert genes.effect[1, 2] == pytest.approx((inside.mean() - outside.mean()) / deviation)
    assert genes.mean[1, 2] == pytest.approx(inside.mean())
    assert genes.rest_mean[1, 2] == pytest.approx(outside.mean())
    assert genes.above[1, 2] == (inside[:, None] > outside).mean()
    assert genes.n_tiles.tolist() == [4, 3, 2] and np.isnan(genes.effect[:, 1]).all()


def test_top_genes_are_the_highest_and_never_the_lowest(genes: DomainGenes) -> None:
    assert genes.top_genes(1, 1)[0][0] == "UP1" and genes.top_genes(2, 1)[0][0] == "UP2"
    for domain in (1, 2, 3):
        effects = [effect for _, effect in genes.top_genes(domain, 4)]
        assert effects == sorted(effects, reverse=True) and all(e > 0 for e in effects)
    one = compare_domains(np.ones((3, 2)), ("A", "B"), np.ones(3, int))  # no rest
    assert one.top_genes(1, 2) == [] and np.isnan(one.effect).all()


def test_files_have_names_figures_and_origin(genes: DomainGenes, tmp_path) -> None:
    names = ["Nest, solid", "Stroma", "Fat"]
    record = {"checkpoint_sha256": "ab", "leiden_resolution": 0.7}
    path = write_domain_genes(tmp_path / "genes.csv", genes, names, record)
    rows = list(csv.DictReader(path.open()))
    assert len(rows) == 12 and json.loads((tmp_path / "genes.csv.json").read_text()) == record
    first = rows[0]
    assert (first["domain"], first["name"], first["gene"]) == ("1", "Nest, solid", "UP1")
    assert float(first["effect_sd"]) == pytest.approx(genes.effect[0, 0], rel=1e-5)
    assert [r["effect_sd"] for r in rows if r["gene"] == "FLAT"] == [""] * 3
    xy = np.arange(18).reshape(9, 2)
    write_domain_tiles(tmp_path / "tiles.csv", xy, LABELS, names, record)
    tiles = list(csv.DictReader((tmp_path / "tiles.csv").open()))
    assert [t["name"] for t in tiles] == [names[n - 1] for n in LABELS]
    assert (tiles[3]["x_px"], tiles[3]["y_px"]) == ("6.00", "7.00")
