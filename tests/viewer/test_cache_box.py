"""The cache box: size on disk, Clear, and whether tiles are stored."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dkan.inference.cache.cache_directory import compute_cache_size, get_cache_folder
from napari_dkan.inference.cache.cache_entry import open_cache_entry
from napari_dkan.inference.cache.cache_key import CacheKey
from napari_dkan.viewer.panels.predict import advanced_box as cache_box
from napari_dkan.viewer.panels.predict.advanced_box import CacheBox
from napari_dkan.viewer.session.viewer_session import get_session
from napari_dkan.viewer.widgets.signal_connections import SignalConnections


@pytest.fixture
def box(make_napari_viewer, tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_DKAN_CACHE", str(tmp_path / "tiles"))
    viewer, links = make_napari_viewer(show=True), SignalConnections()
    made = CacheBox(get_session(viewer), links)
    viewer.window.add_dock_widget(made, name="cache")
    yield made
    links.disconnect_all()
    made.stop_jobs()


def fill_cache(megabytes):
    store = open_cache_entry(CacheKey("a", "C3.tif", "features", 1024, ()))
    rows = np.ones((256 * megabytes, 1024), np.float32)
    store.append(np.stack([np.arange(len(rows))] * 2, 1), rows)


def test_size_is_shown_and_cleared(box: CacheBox, until, monkeypatch):
    until(lambda: box.size_label.text() == "Cache: 0 MB of 10 GB")
    assert box.size_label.toolTip() == str(get_cache_folder())
    fill_cache(3)
    box.refresh_size()
    until(lambda: box.size_label.text() == "Cache: 3 MB of 10 GB")
    box.clear_button.click()
    assert not box.clear_button.isEnabled()
    until(lambda: box.clear_button.isEnabled())
    assert box.size_label.text() == "Cache: 0 MB of 10 GB" and compute_cache_size() == 0

    monkeypatch.setenv("NAPARI_DKAN_CACHE_GB", "much")
    box.refresh_size()
    until(lambda: "set it to a number of gigabytes" in box.size_label.text())


def test_size_is_not_measured_while_hidden(box: CacheBox, until, monkeypatch):
    until(lambda: not box.busy)
    asked = []
    monkeypatch.setattr(cache_box, "compute_cache_size", lambda: asked.append(1) or 0)
    box.refresh_timer.setInterval(10)
    box.hide()
    assert not box.refresh_timer.isActive() and not asked
    box.show()
    until(lambda: len(asked) > 2)


def test_checkbox_follows_the_setting(box: CacheBox):
    session = box.session
    assert box.store_checkbox.isChecked() and session.settings.store_tiles
    box.store_checkbox.click()
    assert not session.settings.store_tiles
    session.change_settings(store_tiles=True)
    assert box.store_checkbox.isChecked()
