"""Weights from a hub: described first, then downloaded with progress, cancelled and resumed."""

from __future__ import annotations

import hashlib
import json

import pytest
import timm
import torch
from safetensors.torch import save
from typer.testing import CliRunner

from napari_dkan.errors import EncoderError
from napari_dkan.model.encoders import build_encoder, encoder_catalog, resolve_encoder_spec
from napari_dkan.model.encoders.encoder_spec import EncoderSpec
from napari_dkan.model.encoders.encoder_weights import get_weights_sha256
from napari_dkan.model.encoders.weights_download import (
    CHUNK_BYTES,
    download_weights,
    get_weights_info,
    list_published_weights,
)

from .fake_hub import COMMIT, NAME, TINY, only_hub, tiny_weights


@pytest.fixture(scope="module")
def weights():
    return tiny_weights()


@pytest.fixture
def hub(weights, monkeypatch, tmp_path):
    with only_hub(monkeypatch, tmp_path, weights) as served:
        yield served


def run_download(steps):
    """Return all steps of a download, and its file."""
    progress = []
    while True:
        try:
            progress.append(next(steps))
        except StopIteration as end:
            return progress, end.value


def test_a_download_reports_progress_and_records_the_file(hub, weights):
    assert get_weights_info("tiny").cached_file is None
    steps, file = run_download(download_weights("tiny"))
    done = [s.done for s in steps]
    assert len(done) > 3 and done == sorted(done) and done[-1] == len(weights)
    assert {s.total for s in steps} == {len(weights)}
    digest = hashlib.sha256(weights).hexdigest()
    assert get_weights_info("tiny").cached_file == file and get_weights_sha256(file) == digest
    encoder = build_encoder(resolve_encoder_spec("tiny"))
    assert (encoder.spec.sha256, encoder.spec.revision) == (digest, COMMIT)
    assert EncoderSpec.from_json(json.loads(json.dumps(encoder.spec.to_json()))) == encoder.spec
    sent = hub.sent
    assert run_download(download_weights("tiny")) == ([], file) and hub.sent == sent
    import huggingface_hub  # other programs find it too

    found = huggingface_hub.try_to_load_from_cache("lab/Tiny", "model.safetensors")
    assert found == str(file)


def test_a_cancelled_download_resumes(hub, weights):
    steps = download_weights("tiny")
    while next(steps).done < 2 * CHUNK_BYTES:
        pass
    steps.close()  # Cancel
    assert get_weights_info("tiny").cached_file is None
    steps, _ = run_download(download_weights("tiny"))
    assert steps[0].done == 2 * CHUNK_BYTES
    assert hub.ranges == ["", f"bytes={2 * CHUNK_BYTES}-"]
    assert (
        build_encoder(resolve_encoder_spec("tiny")).spec.sha256
        == hashlib.sha256(weights).hexdigest()
    )


def test_a_broken_connection_is_reported_and_the_download_resumes(hub, weights):
    hub.drop_after = CHUNK_BYTES + 10
    with pytest.raises(EncoderError, match="could not be fetched"):
        run_download(download_weights("tiny"))
    assert get_weights_info("tiny").cached_file is None
    hub.drop_after = None
    steps, _ = run_download(download_weights("tiny"))
    assert steps[0].done >= CHUNK_BYTES and steps[-1].done == len(weights)


def test_a_file_with_another_hash_is_discarded(hub):
    hub.honest = False
    with pytest.raises(EncoderError, match="SHA-256 differs"):
        run_download(download_weights("tiny"))
    hub.honest = True
    steps, _ = run_download(download_weights("tiny"))
    assert steps[0].done == 0


def test_errors_of_the_hub_say_what_to_do(hub, monkeypatch):
    hub.gated.add("lab/Tiny")
    with pytest.raises(EncoderError, match=r"gated: accept its licence .*hf auth login.*local"):
        run_download(download_weights("tiny"))
    hub.gated.clear()
    hub.files.clear()
    with pytest.raises(EncoderError, match="has no weights that can be used"):
        run_download(download_weights("tiny"))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(EncoderError, match="check the network connection, or give a local"):
        run_download(download_weights("tiny"))


def test_the_command_describes_confirms_and_downloads(hub, weights):
    from napari_dkan.cli import app

    run = CliRunner().invoke
    listed = run(app, ["encoders"]).stdout
    for words in ("uni ", "Owkin non-commercial", "free", "gated", "4.5 GB", "lab/Tiny", "3 MB"):
        assert words in listed
    refused = run(app, ["encoders", "get", "tiny"], input="n\n")
    assert refused.exit_code == 1 and not hub.ranges
    assert "3 MB from lab/Tiny" in refused.stdout and "licence MIT" in refused.stdout
    got = run(app, ["encoders", "get", "tiny", "--yes"])
    assert got.exit_code == 0 and hashlib.sha256(weights).hexdigest() in got.stdout
    assert run(app, ["encoders"]).stdout.count(" yes") == 1


def test_weights_with_another_hash_than_the_checkpoint_states_are_refused(
    weights, monkeypatch, tmp_path
):
    from dataclasses import replace

    monkeypatch.setitem(encoder_catalog.PUBLISHED_ENCODERS, NAME, TINY)
    monkeypatch.setenv("NAPARI_DKAN_CACHE", str(tmp_path))
    file = tmp_path / "w.safetensors"
    file.write_bytes(weights)
    spec = build_encoder(resolve_encoder_spec(NAME), weights=file).spec
    assert spec.sha256 == hashlib.sha256(weights).hexdigest() and spec.revision == ""
    assert build_encoder(spec, weights=file).spec == spec
    torch.manual_seed(1)
    file.write_bytes(save(timm.create_model("test_vit").state_dict()))  # noticed, though hashed
    with pytest.raises(EncoderError, match="not the weights file that this checkpoint"):
        build_encoder(spec, weights=file)
    assert build_encoder(replace(spec, sha256=""), weights=file).spec.sha256 != spec.sha256


def test_the_list_of_published_weights_needs_no_network(monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *a: pytest.fail("a socket was opened"))
    names = "uni uni2-h h-optimus-0 h-optimus-1 virchow2 conch phikon phikon-v2"
    assert {o.short_name for o in list_published_weights()} >= set(names.split())
    assert all(o.licence and o.access and o.megabytes for o in list_published_weights())
