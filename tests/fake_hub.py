"""A small Hugging Face hub for tests: one repository on plain HTTP, which counts bytes."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save

from napari_dkan.model.encoders import encoder_catalog
from napari_dkan.model.encoders.encoder_catalog import PublishedEncoder
from napari_dkan.model.encoders.encoder_spec import EncoderSpec

NAME = "hf-hub:lab/Tiny"
TINY = PublishedEncoder(
    EncoderSpec(NAME, dimension=64, px=160, mean=(0.5,) * 3, std=(0.5,) * 3, licence="MIT"),
    "test_vit",
    access="free",
    megabytes=3,
)
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub:
    """State of the hub.

    Attributes
    ----------
    files : content by ``owner/model/filename``.
    gated : repositories whose licence has to be accepted.
    honest : whether the content that is sent has the stated hash.
    drop_after : bytes after which every connection ends, None for never.
    ranges : requested ranges, in order.
    sent : number of bytes.
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.gated: set[str] = set()
        self.honest = True
        self.drop_after: int | None = None
        self.ranges: list[str] = []
        self.sent = 0
        self.address = ""


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[FakeHub]:
    """Run a hub at ``address`` within the context."""
    hub = FakeHub(files)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(send=False)

        def do_GET(self) -> None:
            self._answer(send=True)

        def _answer(self, send: bool) -> None:
            # The hub's client also makes other requests.
            repository, _, asked = self.path.lstrip("/").partition("/resolve/")
            content = hub.files.get(f"{repository}/{asked.partition('/')[2]}")
            if send and asked:
                hub.ranges.append(self.headers.get("Range", ""))
            start = int((self.headers.get("Range") or "bytes=0-")[6:].split("-")[0])
            if repository in hub.gated:
                self.send_response(403)
                self.send_header("X-Error-Code", "GatedRepo")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if content is None:
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("X-Linked-Etag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Linked-Size", str(len(content)))
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            if send:
                body = content[start:] if hub.honest else bytes(len(content) - start)
                body = body[: hub.drop_after]
                hub.sent += len(body)
                self.wfile.write(body)
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def tiny_weights() -> bytes:
    """Return a file of a few chunks: weights of the small encoder, and an unneeded classifier."""
    torch.manual_seed(0)
    state = timm.create_model("test_vit").state_dict()
    return save(state | {"head.weight": torch.zeros(1000, 64 * 12)})


@contextmanager
def only_hub(monkeypatch: pytest.MonkeyPatch, folder: Path, weights: bytes) -> Iterator[FakeHub]:
    """Run the only reachable hub, with one encoder of the catalogue and an empty cache."""
    monkeypatch.setitem(encoder_catalog.PUBLISHED_ENCODERS, NAME, TINY)
    monkeypatch.setitem(encoder_catalog.FULL_NAMES, "tiny", NAME)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setenv("NAPARI_DKAN_CACHE", str(folder / "notes"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with serving({"lab/Tiny/model.safetensors": weights}) as served:
        template = served.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", served.address)
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield served
