"""genes.safetensors: built from the command line, read back, and refused when damaged."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from napari_dkan.cli import main
from napari_dkan.errors import CheckpointError, DkanError, GeneError, SpotsError
from napari_dkan.expression.knowledge.gene_records import GeneRecord
from napari_dkan.expression.panel import Panel, read_panel
from napari_dkan.inference.gene_file import GeneFile, read_gene_file, write_gene_file
from napari_dkan.model import load_checkpoint
from napari_dkan.model.safetensors_header import read_safetensors_header
from napari_dkan.model.text_basis import TextBasis
from napari_dkan.model.text_encoders import TextEncoderSpec
from napari_dkan.training.build_gene_file import build_gene_file, make_gene_report
from napari_dkan.training.gene_text import read_gene_text

ENTRY = "napari_dkan_genes"
NO_KEY = ("--refine=http://x", "--refine-model=m", "--refine-key=NOT_SET_ANYWHERE")


class Letters:
    """An encoder that counts letters: quick, and the same numbers for the same text."""

    spec = TextEncoderSpec("letters", "ab" * 32, 26)

    def __call__(self, texts: Sequence[str]) -> Tensor:
        letters = "abcdefghijklmnopqrstuvwxyz"
        return torch.tensor([[float(text.lower().count(x)) for x in letters] for text in texts])

    def too_long(self, texts: Sequence[str]) -> list[bool]:
        return [len(text) > 1000 for text in texts]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys):
    """Run the command line without a network and with the quick encoder: (code, out, err)."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("napari_dkan.model.text_encoders.load_text_encoder", lambda name: Letters())

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["napari-dkan", "genes", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            main()
        out = capsys.readouterr()
        return exit.value.code or 0, out.out, out.err

    return call


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    file = tmp_path / "genes.tsv"
    rows = [
        "symbol\tensembl_id\tname\tentrez_id\tbiotype\trefseq_summary",
        "PSAP\tENSG1\tprosaposin\t5660\tprotein_coding\tMakes saposins.",
        "H3-3B\tENSG2\tH3.3 histone B\t3021\tprotein_coding\t" + "A histone. " * 100,
        "IGKC\tENSG3\timmunoglobulin kappa constant\t3514\tIG_C_gene\t",
    ]
    file.write_text("\n".join(rows) + "\n")
    return file


@pytest.fixture
def made() -> GeneFile:
    genes = (
        GeneRecord("H3F3B", "H3-3B", "ENSG2", match="renamed", text="a", text_from="summary"),
        GeneRecord("PSAP", "PSAP", "ENSG1", match="approved", text="bc", text_from="summary"),
        GeneRecord("SAP1", "PSAP", "ENSG1", match="alias", text="bc", text_from="summary"),
        GeneRecord("CLONE", match="unknown", text="CLONE", text_from="symbol"),
    )
    encoder = Letters()
    return GeneFile(genes, encoder([g.text for g in genes]), encoder.spec, {"version": "0"})


def test_build_and_show(run, tables: Path, tmp_path: Path) -> None:
    panel, out, report = (tmp_path / n for n in ("panel.txt", "genes.safetensors", "report.json"))
    panel.write_text("H3F3B\nIGKC\nCLONE\n")
    arguments = ("--descriptions", tables, "--panel", panel, "--genes", "PSAP, IGKC,H3-3B")
    code, told, _ = run("build", *arguments, "-o", out, "--report", report)
    assert code == 0
    assert "5 genes: 3 by approved symbol or Ensembl id, 1 renamed, 0 by alias, 1 not" in told
    assert "3 with a summary (0 refined), 1 with their name only, 2 cut off" in told
    assert "CLONE: no gene of the table is called CLONE" in told
    file = read_gene_file(out)
    assert [g.symbol for g in file.genes] == ["H3F3B", "IGKC", "CLONE", "PSAP", "H3-3B"]
    assert [g.approved for g in file.genes] == ["H3-3B", "IGKC", "", "PSAP", "H3-3B"]
    assert torch.equal(file.features, Letters()([g.text for g in file.genes]))
    assert "the same gene as H3-3B" in file.genes[0].note and "no summary" in file.genes[1].note
    # what was asked for is kept, where it lay on the disk is not
    assert file.build_info["params"]["panel"] == "panel.txt"
    assert str(tmp_path) not in json.dumps(file.build_info)
    assert json.loads(report.read_text()) == make_gene_report(file)
    assert make_gene_report(file)["unresolved"] == ["CLONE"]

    code, told, _ = run("show", out, "PSAP")
    assert code == 0 and "Entrez: 5660" in told and "PSAP, prosaposin. Makes saposins." in told
    code, told, err = run("show", out, "ERBB2")
    assert code == 2 and not told and "ERBB2 is not among the 5 genes" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--genes", "PSAP"), "Give --tables"),
        (("--descriptions", "{tables}"), "Give --panel FILE or --genes"),
        (("--genes", "PSAP", "--aliases", "{tables}"), "--aliases needs --descriptions"),
        (("--genes", "PSAP", "--tables", ".", "--aliases", "{tables}"), "not both"),
        (("--genes", "Psap,Foo", "--descriptions", "{tables}"), "None of the 2 genes is known"),
        (("--genes", "PSAP", "--tables", "{tmp}"), "cannot be read as a gzipped gene table"),
        (("--genes", "P", "--descriptions", "{tables}", "--refine", "http://x"), "--refine-model"),
        (
            ("--genes=P", "--descriptions={tables}", *NO_KEY),
            "variable NOT_SET_ANYWHERE, which is not set",
        ),
    ],
)
def test_build_errors(run, tables: Path, tmp_path: Path, arguments, says: str) -> None:
    out = tmp_path / "genes.safetensors"
    words = [a.format(tables=tables, tmp=tmp_path) for a in arguments]
    code, told, err = run("build", *words, "-o", out)
    assert code == 2 and says in err and not told and not out.exists()
    assert err.count("\n") == 1 and "Traceback" not in err


def test_a_gene_file_round_trips(made: GeneFile, tmp_path: Path) -> None:
    path = tmp_path / "genes.safetensors"
    write_gene_file(path, made)
    back = read_gene_file(path)
    assert replace(back, features=made.features) == made
    assert torch.equal(back.features, made.features)
    rows = {
        name: back.find_row(name) for name in ("H3F3B", "H3-3B", "ENSG2", "PSAP", "SAP1", "ENSG1")
    }
    assert rows == {"H3F3B": 0, "H3-3B": 0, "ENSG2": 0, "PSAP": 1, "SAP1": 2, "ENSG1": None}
    assert back.find_row("") is None and back.find_row("psap") is None
    with pytest.raises(CheckpointError, match="it describes genes and holds no network"):
        load_checkpoint(path)


def test_damaged_gene_files_are_refused(made: GeneFile, tmp_path: Path) -> None:
    path = tmp_path / "genes.safetensors"
    write_gene_file(path, made)
    data = json.loads(read_safetensors_header(path).metadata[ENTRY])
    first = data["genes"][0]

    def broken(features: Tensor = made.features, **changes: object) -> None:
        text = json.dumps({**data, **changes})
        save_file({"features": features}, path, {ENTRY: text})

    cases = {
        "format": {"format": 2},
        "its encoder": {"encoder": None},
        "list of genes": {"genes": []},
        "gene 1 is incomplete": {"genes": [{**first, "more": ""}]},
        "no text": {"genes": [{**first, "note": 3}]},
        "not one of this format": {"genes": [{**first, "match": "guessed"}]},
        "names a gene twice": {"genes": [first] * 4},
        "4 genes x 384": {"encoder": {**data["encoder"], "dimension": 384}},
        "from 1 to 16384": {"encoder": {**data["encoder"], "dimension": 10**9}},
        "not finite": {"features": made.features / 0},
        "3 genes x 26": {"genes": data["genes"][:3]},
        "how it was made": {"made": []},
    }
    for says, changes in cases.items():
        broken(**changes)
        says = "the text encoder's description" if says == "its encoder" else says
        with pytest.raises(GeneError, match=r"cannot be used as a gene file") as told:
            read_gene_file(path)
        assert says in str(told.value) and "genes build" in str(told.value)

    # a header that claims terabytes is refused before anything is allocated
    entry = json.dumps({**data, "genes": [{**first, "symbol": str(i)} for i in range(9)]})
    claim = {"dtype": "F32", "shape": [9, 26], "data_offsets": [0, 10**13]}
    header = json.dumps({"__metadata__": {ENTRY: entry}, "features": claim}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(64))
    with pytest.raises(GeneError, match="truncated"):
        read_gene_file(path)
    save_file({"features": made.features}, path)
    with pytest.raises(GeneError, match="describes no genes"):
        read_gene_file(path)
    for name, content in {"empty": b"", "zip": b"PK\x03\x04", "text": b"PSAP\n"}.items():
        path.write_bytes(content)
        with pytest.raises(GeneError, match=r"genes\.safetensors cannot be used"):
            read_gene_file(path), name
    with pytest.raises(GeneError, match="no such file"):
        read_gene_file(tmp_path / "none.safetensors")


def test_a_truncated_file_is_an_error(made: GeneFile, tmp_path: Path) -> None:
    whole, part = tmp_path / "genes.safetensors", tmp_path / "part.safetensors"
    write_gene_file(whole, made)
    content = whole.read_bytes()
    for end in range(0, len(content), 97):
        part.write_bytes(content[:end])
        with pytest.raises(GeneError):
            read_gene_file(part)


def test_training_reads_gene_files_and_npz(made: GeneFile, tmp_path: Path) -> None:
    path = tmp_path / "genes.safetensors"
    write_gene_file(path, made)
    panel = Panel.from_symbols(["CLONE", "H3-3B", "PSAP"])
    text = read_gene_text(path, panel, 2)
    assert text.features.shape == (3, 2) and text.features.dtype == torch.float32
    assert text.basis is not None and text.basis.encoder == "letters (abababababab)"
    table = made.features[[3, 0, 1]]
    np.savez(tmp_path / "genes.npz", genes=np.array(panel.symbols), features=table.numpy())
    same = read_gene_text(tmp_path / "genes.npz", panel, 2)
    assert torch.equal(text.features, same.features)
    torch.testing.assert_close(text.basis.project(table), text.features)
    with pytest.raises(SpotsError, match="no text for 1 panel genes, ERBB2"):
        read_gene_text(path, Panel.from_symbols(["ERBB2", "PSAP"]), 2)
    (tmp_path / "bad.safetensors").write_bytes(b"PK")
    with pytest.raises(GeneError, match="cannot be used as a gene file"):
        read_gene_text(tmp_path / "bad.safetensors", panel, 2)


def test_the_basis_projects_new_genes_like_those_of_the_panel(data_dir: Path) -> None:
    file = data_dir / "genes" / "gene_text_embedding_biobert1024_her2st.npz"
    table = torch.from_numpy(np.load(file, allow_pickle=False)["features"]).double()
    panel, new = table[:200], table[200:]
    basis = TextBasis.fit(panel, 300, "biobert")
    # nothing is lost among the panel's genes: their distances are those of the embeddings
    placed = basis.project(panel).double()
    torch.testing.assert_close(
        torch.cdist(placed, placed) * basis.scale, torch.cdist(panel, panel), atol=1e-3, rtol=1e-3
    )
    assert placed.square().mean().sqrt() == pytest.approx(1, abs=1e-5)
    # axes the panel does not span are empty, so that a new gene brings no noise of its own
    assert not basis.axes[:, 199:].any()
    gram = basis.axes[:, :199].T @ basis.axes[:, :199]
    torch.testing.assert_close(gram, torch.eye(199), atol=1e-5, rtol=0)
    # a new gene lies nearer to its nearest panel gene than to most, in either space
    near = torch.cdist(new, panel).argmin(1)
    distances = torch.cdist(basis.project(new).double(), placed)
    ranks = (distances < distances.gather(1, near[:, None])).sum(1)
    assert ranks.float().mean() < 2
    short = TextBasis.fit(panel[:, :10], 16, "short")
    assert short.project(new[:, :10]).shape == (50, 16) and short.axes.shape == (10, 16)
    with pytest.raises(DkanError, match="1024 of biobert"):
        basis.project(new[:, :384])


def test_npz_features_are_projected_on_principal_components(data_dir: Path) -> None:
    """By eigenvectors of the covariance, which the file's code does not use."""
    panel = read_panel(data_dir / "genes" / "panel_her2st_250.txt")
    path = data_dir / "genes" / "gene_text_embedding_biobert1024_her2st.npz"
    table = np.load(path, allow_pickle=False)["features"].astype(np.float64)
    table -= table.mean(0)
    _, vectors = np.linalg.eigh(table.T @ table)
    wanted = table @ vectors[:, ::-1][:, :12]
    wanted *= np.sign(wanted[np.abs(wanted).argmax(0), np.arange(12)])
    wanted /= np.sqrt((wanted**2).mean())
    text = read_gene_text(path, panel, 12)
    np.testing.assert_allclose(text.features.numpy(), wanted, atol=1e-5)


def test_building_needs_no_complete_table() -> None:
    with pytest.raises(GeneError, match="None of the 1 genes is known, PSAP first"):
        build_gene_file(["PSAP"], Letters())
