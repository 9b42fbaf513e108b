"""OME-Zarr at an address: the same pixels, and a sentence when the connection is lost."""

from __future__ import annotations

import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from napari_dkan.errors import DamagedTileError, SlideError
from napari_dkan.slide import open_slide
from napari_dkan.slide.slide_location import is_remote
from napari_dkan.slide.sources import remote_zarr_store
from napari_dkan.slide.sources.ome_zarr_source import OmeZarrSource

from .slide_files import halves, ome_zarr, picture

PIXELS = picture(150, 700)


class Handler(SimpleHTTPRequestHandler):
    """Serves files; refuses so many requests first, with this status."""

    refusals = 0
    status = 503

    def log_message(self, *args):
        pass

    def do_GET(self):
        if Handler.refusals > 0 and "/0/" in self.path:
            Handler.refusals -= 1
            self.send_error(Handler.status)
        else:
            super().do_GET()


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A folder with a 0.4 and a 0.5 image, and its address."""
    monkeypatch.setattr(remote_zarr_store, "RETRY_DELAYS_S", (0.01, 0.01))
    monkeypatch.setattr(remote_zarr_store, "FAIL_FAST_S", 0.0)
    monkeypatch.setattr(Handler, "refusals", 0)
    folder = tmp_path / "bucket"
    folder.mkdir()
    for version, name in (("0.4", "a.zarr"), ("0.5", "b c.zarr")):
        ome_zarr(folder / name, halves(PIXELS, 2), version=version)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield folder, f"http://127.0.0.1:{server.server_port}/bucket", server
    finally:
        server.shutdown()
        server.server_close()


def whole(slide):
    return slide.read_region(0, 0, slide.width, slide.height)


def test_the_same_as_from_the_folder(served, monkeypatch):
    folder, address, _ = served
    for name in ("a.zarr", "b c.zarr"):
        with open_slide(f"{address}/{name}/") as slide, open_slide(folder / name) as local:
            assert (whole(slide) == PIXELS).all()
            assert slide.fingerprint() == local.fingerprint()
            assert (slide.levels, slide.pixel_size) == (local.levels, local.pixel_size)
            assert (slide.path, slide.label, slide.name) == (None, name, name[:-5])
            assert slide.location == f"{address}/{name}/"
    # A public bucket is read over https; another provider's address is what AWS tools use.
    monkeypatch.setenv("AWS_ENDPOINT_URL", address.removesuffix("/bucket"))
    with open_slide("s3://bucket/a.zarr") as slide:
        assert (whole(slide) == PIXELS).all()
        assert slide.location == "s3://bucket/a.zarr"


def test_from_memory():
    """fsspec's own, whose calls are not asynchronous."""
    import fsspec
    import zarr

    ome_zarr_like = zarr.open_group("memory://kept/m.zarr", mode="w", zarr_format=3)
    ome_zarr_like.create_array("0", data=PIXELS, chunks=(64, 64, 3))
    axes = [{"name": name} for name in "yxc"]
    image = {"axes": axes, "datasets": [{"path": "0"}]}
    ome_zarr_like.attrs["ome"] = {"version": "0.5", "multiscales": [image]}
    with open_slide("memory://kept/m.zarr") as slide:
        assert (whole(slide) == PIXELS).all()
    fsspec.filesystem("memory").rm("/kept", recursive=True)


def test_credentials_are_used_but_not_stored(served):
    _, address, _ = served
    with open_slide(address.replace("://", "://ward:secret@") + "/a.zarr") as slide:
        assert slide.location == f"{address}/a.zarr"
    with pytest.raises(SlideError) as caught:
        open_slide("http://ward:secret@127.0.0.1:1/a.zarr")
    assert "secret" not in str(caught.value)


def test_chunks_that_were_not_scanned_are_white(served):
    folder, address, _ = served
    shutil.rmtree(folder / "b c.zarr" / "0" / "c" / "0" / "0")
    with open_slide(f"{address}/b c.zarr") as slide:
        pixels = whole(slide)
    assert (pixels[:64, :64] == 0).all() and (pixels[64:] == PIXELS[64:]).all()


def test_temporary_failure_is_retried(served):
    _, address, _ = served
    with open_slide(f"{address}/a.zarr") as slide:
        Handler.refusals = 2
        assert (whole(slide) == PIXELS).all() and Handler.refusals == 0


def lost(slide, words):
    with pytest.raises(SlideError, match=words) as caught:
        whole(slide)
    assert not isinstance(caught.value, DamagedTileError)  # else a map would go on without it
    assert slide.label in str(caught.value) and "try again" in str(caught.value)


def test_lost_connection_is_reported_and_recovers(served):
    _, address, _ = served
    with open_slide(f"{address}/a.zarr") as slide:
        Handler.refusals = 10_000
        lost(slide, "cannot be reached.*503")
        Handler.refusals = 0
        assert (whole(slide) == PIXELS).all()  # nothing of the failure is kept


def test_removed_slide_raises_instead_of_reading_black(served):
    folder, address, _ = served
    with open_slide(f"{address}/a.zarr") as slide:
        shutil.rmtree(folder / "a.zarr")
        lost(slide, "no longer at its address")


def test_unreachable_server_raises(served):
    _, address, server = served
    with open_slide(f"{address}/a.zarr") as slide:
        server.shutdown()
        server.server_close()
        lost(slide, "cannot be reached")
    with pytest.raises(SlideError, match=r"a\.zarr cannot be reached"):
        open_slide(f"{address}/a.zarr")


def test_damaged_remote_chunk_raises(served):
    folder, address, _ = served
    (folder / "b c.zarr" / "0" / "c" / "0" / "0" / "0").write_bytes(b"no chunk")
    with (
        open_slide(f"{address}/b c.zarr") as slide,
        pytest.raises(DamagedTileError, match=r"b c\.zarr"),
    ):
        whole(slide)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("/nothing.zarr", "no OME-Zarr image at this address"),
        ("/a.zarr?signature=1", "no '\\?'"),
        ("gs://bucket/a.zarr", "only https"),
        ("simplecache::http://host/a.zarr", "only https|no slide"),
        ("ftp://host/a.zarr", "only https"),
        ("https://", "host"),
        ("http://[host/a.zarr", "mistyped"),
    ],
)
def test_invalid_urls_raise(address, words, served):
    with pytest.raises(SlideError, match=words) as caught:
        open_slide(served[1] + address if address.startswith("/") else address)
    assert "\n" not in str(caught.value)


def test_file_url_is_a_local_file(served):
    folder, _, _ = served
    assert not is_remote("C:/slides/a.svs") and not is_remote("//server/share/a.svs")
    with open_slide((folder / "b c.zarr").as_uri()) as slide:
        assert slide.path == folder / "b c.zarr"


def test_disconnected_network_drive_is_not_damage(tmp_path, monkeypatch):
    """Not damage: the file may be whole, and is read again once the drive is back."""
    import errno

    path = ome_zarr(tmp_path / "a.zarr", [PIXELS], version="0.5")
    with open_slide(path) as slide:
        with monkeypatch.context() as patch:
            gone = OSError(errno.EHOSTDOWN, "Host is down")

            def fail(*args):
                raise gone

            patch.setattr(OmeZarrSource, "read_tile", fail)
            lost(slide, "cannot be reached.*Host is down.*drive")
        assert (whole(slide) == PIXELS).all()
        assert np.asarray(slide.pyramid()[0]).shape == PIXELS.shape
