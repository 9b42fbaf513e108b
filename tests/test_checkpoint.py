"""Checkpoint files and the import of published ones: read completely or refused, not executed."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
from argparse import Namespace
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from napari_dkan.errors import CheckpointError, OutputError
from napari_dkan.expression.label_scale import LabelScale
from napari_dkan.expression.panel import Gene, Panel
from napari_dkan.model import (
    DKAN,
    Checkpoint,
    DKANConfig,
    PatchGeometry,
    convert_published,
    describe_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from napari_dkan.model.encoders.encoder_spec import EncoderSpec
from napari_dkan.model.gene_list_file import read_gene_list

CONFIG = DKANConfig(genes=3, dim=8, text_dim=8, trunk="test_resnet", trunk_dim=96)
CARD = {"title": "Tiny", "metrics": {"PCC-ALL": 0.31, "ridge PCC-ALL": 0.29}, "licence": "BSD"}


def make_checkpoint() -> Checkpoint:
    torch.manual_seed(0)
    genes = (Gene("ERBB2", "ENSG00000141736", "a receptor", ("HER2",)), Gene("GATA3"), Gene("CD74"))
    return Checkpoint(
        network=DKAN(CONFIG, torch.randn(3, 8)).eval(),
        panel=Panel(genes),
        label_scale=LabelScale(smoothing=1),
        patch=PatchGeometry(224, 154.112),
        spot_pitch_um=200.0,
        spot_diameter_um=100.0,
        encoder=EncoderSpec("external", dimension=8, licence="none"),
        gene_text="random",
        card=CARD,
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Checkpoint:
    return save_checkpoint(
        tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors", make_checkpoint()
    )


def test_a_checkpoint_round_trips(saved: Checkpoint):
    loaded = load_checkpoint(saved.path)
    for field in ("panel", "label_scale", "patch", "encoder", "gene_text", "card", "creator"):
        assert getattr(loaded, field) == getattr(saved, field)
    assert loaded.sha256 == saved.sha256 and len(loaded.sha256) == 64
    assert (loaded.spot_pitch_um, loaded.spot_diameter_um) == (200.0, 100.0)
    assert not loaded.network.training and loaded.network.config == CONFIG
    assert loaded.title == "Tiny"
    original = saved.network.state_dict()
    for name, tensor in loaded.network.state_dict().items():
        assert torch.equal(tensor, original[name]), name
    with safe_open(saved.path, "pt") as file:
        assert json.loads(file.metadata()["napari_dkan"])["format"] == 1


def test_info_leads_with_the_figures_beside_depth(tiny_checkpoint_file: Path) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint_file)
    metrics = {
        "pcc_all": 0.5,
        "depth_partial_pcc": 0.25,
        "ceiling": 0.67,
        "share_of_attainable": 0.373,
        "ridge": {"depth_partial_pcc": 0.2},
        "depth_alone": {"pcc_all": 0.36},
    }
    data = {"mean_profile": {f"G{i}": 0.01 for i in range(100)}}
    text = describe_checkpoint(
        replace(checkpoint, card={"metrics": metrics, "training_data": data})
    )
    assert (
        "depth-partial PCC 0.25 of at most 0.67 (37 % of the attainable), ridge 0.2; "
        "depth alone has PCC-ALL 0.36"
    ) in text
    assert text.index("depth-partial PCC 0.25") < text.index("pcc all")
    assert "of 100 genes" in text and "G55" not in text
    for old in ({}, {"metrics": "not measured"}, {"metrics": {"pcc_all": 0.5}}):
        text = describe_checkpoint(replace(checkpoint, card=old))
        assert "depth-partial PCC and ceiling not recorded" in text


def test_the_card_shows_the_baseline_and_no_control_characters(saved: Checkpoint):
    text = describe_checkpoint(
        replace(saved, card=CARD | {"title": "Tiny\x1b[31m", "note": ["a", 1.23456]})
    )
    for wanted in ("ERBB2, GATA3", "154.112 um at 224 px", "ridge PCC-ALL", "0.29", saved.sha256):
        assert wanted in text
    assert "\x1b" not in text


def test_half_storage_leaves_vectors_in_float32(saved: Checkpoint, tmp_path):
    half = save_checkpoint(tmp_path / "half.safetensors", saved, half=True)
    stored = load_file(half.path)
    assert stored["head_fused.weight"].dtype == torch.float16
    assert stored["trunk.net.layer1.0.bn1.running_var"].dtype == torch.float32
    loaded = load_checkpoint(half.path).network
    assert all(t.dtype == torch.float32 for t in loaded.parameters())
    assert loaded.head_fused.weight.allclose(saved.network.head_fused.weight, atol=1e-3)


def test_an_encoder_is_bundled(tmp_path):
    from napari_dkan.model.encoders.stain_encoder import StainEncoder

    tiles = torch.randint(0, 255, (40, 3, 56, 56), dtype=torch.uint8)
    encoder = StainEncoder.fit([tiles], 8)
    bundled = replace(make_checkpoint(), encoder=encoder.spec, encoder_tensors=encoder.tensors())
    loaded = load_checkpoint(save_checkpoint(tmp_path / "c.safetensors", bundled).path)
    assert torch.equal(loaded.build_tile_encoder()(tiles), encoder(tiles))
    damaged = dict(encoder.tensors())
    damaged.pop("projection")
    path = save_checkpoint(
        tmp_path / "d.safetensors", replace(bundled, encoder_tensors=damaged)
    ).path
    with pytest.raises(CheckpointError, match="projection"):
        load_checkpoint(path)


# --- bad files ---------------------------------------------------------------------------


def write_edited(saved: Checkpoint, path: Path, edit) -> Path:
    """The saved file with its tensors and its JSON passed through edit."""
    tensors = load_file(saved.path)
    with safe_open(saved.path, "pt") as file:
        data = json.loads(file.metadata()["napari_dkan"])
    edit(tensors, data)
    save_file(tensors, path, {"napari_dkan": json.dumps(data)})
    return path


def set_entry(*keys, value):
    def edit(tensors, data):
        for key in keys[:-1]:
            data = data[key]
        data[keys[-1]] = value

    return edit


EDITS = {
    "lacks the tensor head.weight": lambda t, d: t.pop("head.weight"),
    "lacks 5 tensors:.*, ...;": lambda t, d: [
        t.pop(n) for n in list(t) if "head" in n and "bias" in n
    ],
    r"head.weight has shape \(2, 8\) where \(1, 8\)": lambda t, d: t.update(
        {"head.weight": torch.zeros(2, 8)}
    ),
    "no place for the tensor extra": lambda t, d: t.update(extra=torch.zeros(1)),
    "type I64": lambda t, d: t.update({"head.bias": torch.zeros(1, dtype=torch.int64)}),
    "type BOOL": lambda t, d: t.update({"head.bias": torch.zeros(1, dtype=torch.bool)}),
    "head.bias holds values that are not finite": lambda t, d: t.update(
        {"head.bias": torch.tensor([float("nan")])}
    ),
    "label_std": lambda t, d: t.update(label_std=torch.zeros(3)),
    "reads up to 3; update": set_entry("format", value=4),
    "version is missing": set_entry("format", value="1"),
    "panel has 2 genes": lambda t, d: d["panel"].pop(),
    "names GATA3 twice": set_entry("panel", 0, "symbol", value="GATA3"),
    "damaged gene, number 2": set_entry("panel", 1, value=7),
    "dim is 100000000": set_entry("network", "dim", value=10**8),
    "cannot be split": set_entry("network", "image", "heads", value=3),
    "64 tensors|tensors: image.attention": set_entry("network", "image", "depth", value=60),
    "not the name of a timm": set_entry("network", "trunk", value="hf-hub:a/b"),
    "no architecture named": set_entry("network", "trunk", value="nonsense"),
    "gives 768 channels": set_entry("network", "trunk", value="vit_base_patch16_224"),
    "encoder gives 9": set_entry("encoder", "dimension", value=9),
    "encoder's description": set_entry("encoder", value=None),
    "encoder's std": set_entry("encoder", "std", value=[1, 0, -1]),
    "patch side": set_entry("patch", "um", value=-3),
    "'px' is missing": set_entry("patch", value={}),
    "spot pitch": set_entry("spot_pitch_um", value=10**400),
    "impossible base": set_entry("label_scale", "base", value=1),
    "'card' is missing": set_entry("card", value="text"),
    "not valid JSON": set_entry("card", value=float("inf")),
}


@pytest.mark.parametrize("sentence", EDITS)
def test_a_damaged_checkpoint_is_refused_in_one_sentence(saved: Checkpoint, tmp_path, sentence):
    path = write_edited(saved, tmp_path / "bad.safetensors", EDITS[sentence])
    with pytest.raises(CheckpointError, match=sentence) as caught:
        load_checkpoint(path)
    text = str(caught.value)
    assert text.startswith(str(path)) and text.endswith(".") and "\n" not in text


def files_of_other_kinds(folder: Path) -> dict[str, Path]:
    def write(name: str, content: bytes) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    torch.save({"state_dict": {}}, folder / "disguised.safetensors")
    save_file({"weight": torch.zeros(2)}, folder / "other.safetensors")
    deep = b'{"a":' * 20_000
    # more dimensions than any tensor has: a message that quotes the shape would fill a page
    many = {"w": {"dtype": "F32", "shape": [1] * 900, "data_offsets": [0, 4]}}
    wide = json.dumps(many).encode()
    return {
        "no such file": folder / "absent.safetensors",
        "a folder": folder,
        "is empty": write("empty", b""),
        "PyTorch file.*napari-dkan convert": folder / "disguised.safetensors",
        "pickle, which is never opened": write("p.safetensors", pickle.dumps([1, 2, 3])),
        "TIFF": write("t.safetensors", b"II*\x00" + bytes(100)),
        "not a safetensors file": write("noise", b"hello"),
        "is not a safetensors": write("vast", struct.pack("<Q", 2**62) + b"{}"),
        "truncated": write("short", struct.pack("<Q", 5000) + b'{"a": 1}'),
        "header is damaged": write("json", struct.pack("<Q", 4) + b'{"a"'),
        "header is  ?damaged": write("deep", struct.pack("<Q", len(deep)) + deep),
        "header is damaged;": write("wide", struct.pack("<Q", len(wide)) + wide + bytes(4)),
        "not one of napari-dkan": folder / "other.safetensors",
    }


def test_files_of_other_kinds_are_identified(tmp_path):
    for sentence, path in files_of_other_kinds(tmp_path).items():
        with pytest.raises(CheckpointError, match=sentence):
            load_checkpoint(path)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_truncated_or_changed_files_raise_no_other_error(saved: Checkpoint, tmp_path, data):
    content = bytearray(saved.path.read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        header = 8 + int.from_bytes(content[:8], "little")
        content[data.draw(st.integers(0, header - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "fuzzed.safetensors"
    path.write_bytes(content)
    with suppress(CheckpointError):
        # If a letter of a gene's name changed, the checkpoint is valid.
        loaded = load_checkpoint(path)
        assert loaded.network.config.genes == len(loaded.panel)


def test_parts_that_do_not_fit_are_refused():
    for change in (
        {"panel": Panel.from_symbols("AB")},
        {"encoder": EncoderSpec("external", dimension=9)},
        {"spot_pitch_um": 0.0},
        {"card": None},
    ):
        with pytest.raises(CheckpointError):
            replace(make_checkpoint(), **change)
    with pytest.raises(CheckpointError, match="8 to 4096"):
        PatchGeometry(2, 10.0)


def test_a_failed_write_leaves_the_older_file_unchanged(saved: Checkpoint, tmp_path, monkeypatch):
    path = tmp_path / "mine.safetensors"
    before = save_checkpoint(path, saved).sha256

    def full(tensors, name, metadata):
        Path(name).write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("napari_dkan.model.tensor_files.save_file", full)
    with pytest.raises(OutputError, match="No space left"):
        save_checkpoint(path, saved)
    with pytest.raises(CheckpointError, match="not plain JSON"):
        save_checkpoint(path, replace(saved, card={"x": {1, 2}}))
    assert load_checkpoint(path).sha256 == before
    assert os.listdir(tmp_path) == ["mine.safetensors"]


def test_a_loaded_checkpoint_is_independent_of_its_file(saved: Checkpoint, tmp_path):
    path = save_checkpoint(tmp_path / "gone.safetensors", saved).path
    loaded = load_checkpoint(path)
    path.write_bytes(b"")
    assert torch.isfinite(loaded.network.head_fused.weight).all()


# --- import of published checkpoints ------------------------------------------------------


class Trap:
    """An object that touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.fixture
def published(parity_dir):
    names = ("official.ckpt", "genes.npy", "gene_features.pt")
    return dict(
        zip(("ckpt", "genes", "gene_features"), (parity_dir / n for n in names), strict=True)
    )


@pytest.mark.parametrize("which", ["ckpt", "genes", "gene_features"])
def test_code_in_any_of_the_three_files_never_runs(published, tmp_path, which):
    touched, bad = tmp_path / "touched", tmp_path / "bad"
    trap = Trap(touched)
    if which == "genes":
        with bad.open("wb") as file:
            np.save(file, np.array(["A", trap], dtype=object), allow_pickle=True)
    else:
        content = torch.load(published[which], weights_only=True)
        torch.save(content | {"callbacks": trap}, bad)
    with pytest.raises(CheckpointError, match=r"could run code.*\.$"):
        convert_published(**published | {which: bad}, out=tmp_path / "out.safetensors")
    assert sorted(os.listdir(tmp_path)) == ["bad"]


def test_a_published_file_with_a_namespace_is_read(published, tmp_path):
    content = torch.load(published["ckpt"], weights_only=True)
    content["hyper_parameters"] = Namespace(**content["hyper_parameters"], unknown="ignored")
    torch.save(content, tmp_path / "namespace.ckpt")
    named = published | {"ckpt": tmp_path / "namespace.ckpt"}
    assert len(convert_published(**named, out=tmp_path / "o.safetensors").panel) == 10


def test_published_files_that_do_not_fit_are_refused(published, tmp_path):
    content = torch.load(published["ckpt"], weights_only=True)
    state, parameters = content["state_dict"], content["hyper_parameters"]
    lacking = {k: v for k, v in state.items() if k != "fc.bias"}
    name = "fc_final_img.weight"
    endless = state | {name: torch.zeros(1).expand(10**5, 10**7)}
    cases = {
        "state_dict and hyper_parameters": {"ckpt": {"weights": state}},
        "lack 'num_heads_img'": {
            "ckpt": content
            | {"hyper_parameters": {k: v for k, v in parameters.items() if k != "num_heads_img"}}
        },
        "lacks the tensor head_fused.bias": {"ckpt": content | {"state_dict": lacking}},
        "no published DKAN layer": {
            "ckpt": content | {"state_dict": state | {"x": state["fc.bias"]}}
        },
        "larger than itself": {"ckpt": content | {"state_dict": endless}},
        "not resnet18": {
            "ckpt": content | {"hyper_parameters": parameters | {"target_encoder_name": "vgg"}}
        },
        "not finite": {
            "ckpt": content | {"state_dict": state | {"fc.bias": torch.full((10,), torch.nan)}}
        },
        "features of 4 genes": {"gene_features": torch.zeros(4, 32)},
        "another order": {
            "gene_features": {"gene_features": torch.zeros(10, 32), "gene_names": ["X"] * 10}
        },
        "does not hold a table": {"gene_features": {"other": 1}},
    }
    for sentence, files in cases.items():
        paths = {}
        for which, value in files.items():
            paths[which] = tmp_path / which
            torch.save(value, paths[which])
        with pytest.raises(CheckpointError, match=sentence):
            convert_published(**published | paths, out=tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_archives_that_unpack_to_more_than_their_size_are_refused(published, tmp_path):
    bomb = tmp_path / "bomb.ckpt"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**7))
    (tmp_path / "cut.ckpt").write_bytes(published["ckpt"].read_bytes()[: 10**6])
    (tmp_path / "pickle.ckpt").write_bytes(pickle.dumps({"state_dict": {}}))
    for name, sentence in {
        "bomb.ckpt": "claims to unpack",
        "cut.ckpt": "not a PyTorch file",
        "pickle.ckpt": "not a PyTorch file",
        "absent.ckpt": "not a file",
    }.items():
        with pytest.raises(CheckpointError, match=sentence):
            convert_published(**published | {"ckpt": tmp_path / name}, out=tmp_path / "o")


SYMBOLS = ["ERBB2", "HLA-DRA", "µ1"]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", [str, np.str_])
def test_object_arrays_of_any_pickle_protocol_are_read_as_data(tmp_path, protocol, kind):
    array = np.array([kind(s) for s in SYMBOLS], dtype=object)
    path = tmp_path / "genes.npy"
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|O", "fortran_order": False, "shape": (3,)}
        )
        pickle.dump(array, file, protocol=protocol)
    assert read_gene_list(path) == SYMBOLS


def test_plain_gene_lists_are_read(tmp_path):
    for dtype in ("<U7", ">U7"):
        np.save(tmp_path / "genes.npy", np.array(SYMBOLS, dtype=dtype))
        assert read_gene_list(tmp_path / "genes.npy") == SYMBOLS
    (tmp_path / "genes.txt").write_text("\n".join(SYMBOLS) + "\r\n\n", encoding="utf-8")
    assert read_gene_list(tmp_path / "genes.txt") == SYMBOLS


def test_other_arrays_and_damaged_pickles_are_refused(tmp_path):
    path = tmp_path / "genes.npy"
    np.save(path, np.array(SYMBOLS, dtype=object), allow_pickle=True)
    whole = path.read_bytes()
    arrays = [np.zeros(3), np.array([["A"], ["B"]]), np.array([1, None, "A"], dtype=object)]
    contents = [b"", b"\xff\xfe\x00", b"\x93NUMPY\x09\x09", whole[:-20], whole[:150]]
    for array in arrays:
        np.save(path, array, allow_pickle=True)
        contents.append(path.read_bytes())
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(CheckpointError):
            read_gene_list(path)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_changed_gene_array_raises_no_other_error(tmp_path, data):
    path = tmp_path / "genes.npy"
    np.save(path, np.array(SYMBOLS, dtype=object), allow_pickle=True)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(8, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with suppress(CheckpointError):
        assert all(isinstance(g, str) for g in read_gene_list(path))
