"""The cache line of the panel: the size on disk, Clear, and whether tiles are stored."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dkan.inference.store.folders import cache_folder, cache_size
from napari_dkan.inference.store.key import StoreKey
from napari_dkan.inference.store.store import open_store
from napari_dkan.viewer import cache_box
from napari_dkan.viewer.cache_box import CacheBox
from napari_dkan.viewer.links import Links
from napari_dkan.viewer.session import session_of


@pytest.fixture
def box(make_napari_viewer, tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_DKAN_CACHE", str(tmp_path / "tiles"))
    viewer, links = make_napari_viewer(show=True), Links()
    made = CacheBox(session_of(viewer), links)
    viewer.window.add_dock_widget(made, name="cache")
    yield made
    links.cut()
    made.close_lane()


def fill(megabytes):
    store = open_store(StoreKey("a", "C3.tif", "features", 1024, ()))
    rows = np.ones((256 * megabytes, 1024), np.float32)
    store.append(np.stack([np.arange(len(rows))] * 2, 1), rows)


def test_the_size_is_shown_and_cleared(box: CacheBox, until, monkeypatch):
    until(lambda: box.used.text() == "Cache: 0 MB of 10 GB")
    assert box.used.toolTip() == str(cache_folder())
    fill(3)
    box.measure()
    until(lambda: box.used.text() == "Cache: 3 MB of 10 GB")
    box.clear.click()
    assert not box.clear.isEnabled()
    until(lambda: box.clear.isEnabled())
    assert box.used.text() == "Cache: 0 MB of 10 GB" and cache_size() == 0

    monkeypatch.setenv("NAPARI_DKAN_CACHE_GB", "much")
    box.measure()
    until(lambda: "set it to a number of gigabytes" in box.used.text())


def test_the_disk_is_left_alone_while_nobody_looks(box: CacheBox, until, monkeypatch):
    until(lambda: not box.busy)
    asked = []
    monkeypatch.setattr(cache_box, "cache_size", lambda: asked.append(1) or 0)
    box._timer.setInterval(10)
    box.hide()
    assert not box._timer.isActive() and not asked
    box.show()
    until(lambda: len(asked) > 2)


def test_whether_tiles_are_stored_is_a_setting(box: CacheBox):
    session = box._session
    assert box.store_tiles.isChecked() and session.settings.store
    box.store_tiles.click()
    assert not session.settings.store
    session.change(store=True)
    assert box.store_tiles.isChecked()
