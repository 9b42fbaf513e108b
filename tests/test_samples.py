"""Sample sections: the synthetic one is complete, the real one is checked before it is used."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_dkan.errors import CheckpointError, DkanError
from napari_dkan.expression.readers.layouts.her2st_sections import read_her2st_section
from napari_dkan.samples import (
    fetch_her2st_section,
    find_bundled_checkpoint,
    get_synthetic_section,
    is_her2st_section_local,
    list_bundled_checkpoints,
    sample_sections,
)
from napari_dkan.slide import open_slide


def test_synthetic_section_is_a_her2st_section_with_a_pyramid() -> None:
    paths = get_synthetic_section()
    assert paths.title == "Synthetic H&E X7 (expression simulated)"
    data = read_her2st_section(paths.root, paths.name)
    assert data.shape == (94, 41)
    assert data.uns["mpp"] == pytest.approx(0.5, abs=1e-6)
    with open_slide(paths.image) as slide:
        assert slide.pixel_size is not None
        assert slide.pixel_size.mpp == 0.5
        assert "OME" in slide.pixel_size.origin
        assert [level.width for level in slide.levels] == [4608, 2304, 1152, 576]
    for path in (paths.image, paths.root / "README.txt"):
        assert b"simulated" in path.read_bytes()


def test_real_section_comes_from_the_data_folder(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAPARI_DKAN_DATA", str(data_dir))
    paths = fetch_her2st_section("C3")
    assert is_her2st_section_local("C3")
    assert paths.image.is_relative_to(data_dir)
    assert read_her2st_section(paths.root, paths.name).n_obs == 180

    copy = tmp_path / "her2st"
    for path in (paths.image, paths.counts, paths.spots):
        target = copy / path.relative_to(paths.root)
        target.parent.mkdir(parents=True)
        target.write_bytes(path.read_bytes())
    monkeypatch.setenv("NAPARI_DKAN_DATA", str(copy))  # the layout itself
    assert fetch_her2st_section("C3").counts == copy / "ST-cnts" / "C3.tsv.gz"
    with (copy / "ST-spotfiles" / "C3_selection.tsv").open("a") as file:
        file.write("1\t1\t1\t1\t1\t1\t1\n")
    with pytest.raises(DkanError, match=r"C3_selection\.tsv is not the study's file"):
        fetch_her2st_section("C3")


def test_downloads_are_pinned_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    import pooch
    import requests

    urls: list[str] = []
    content = {name: name.encode() for name in sample_sections.HER2ST_SHA256["C3"]}

    class FakeDownloader:
        def __init__(self, **options: object) -> None:
            assert options["timeout"] == sample_sections.DOWNLOAD_TIMEOUT_S

        def __call__(self, url: str, output_file: str, pooch: object) -> None:
            urls.append(url)
            if offline:
                raise requests.exceptions.ConnectionError("a\nlong\nstory")
            name = next(n for n in content if url.endswith(n))
            Path(output_file).write_bytes(content[name])

    monkeypatch.setattr(pooch, "HTTPDownloader", FakeDownloader)
    monkeypatch.setattr(sample_sections, "sample_cache_folder", lambda: tmp_path / "cache")
    monkeypatch.delenv("NAPARI_DKAN_DATA", raising=False)

    offline = True
    with pytest.raises(DkanError, match=r"no network.*NAPARI_DKAN_DATA.*synthetic") as error:
        fetch_her2st_section("C3")
    assert "\n" not in str(error.value)
    assert not is_her2st_section_local("C3")

    offline = False
    with pytest.raises(DkanError, match="not the expected"):
        fetch_her2st_section("C3")
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]

    digests = {name: hashlib.sha256(text).hexdigest() for name, text in content.items()}
    monkeypatch.setitem(sample_sections.HER2ST_SHA256, "C3", digests)
    paths = fetch_her2st_section("C3")
    assert paths.spots.read_bytes() == b"ST-spotfiles/C3_selection.tsv"
    assert is_her2st_section_local("C3")
    assert all(f"/almaan/her2st/{sample_sections.HER2ST_COMMIT}/data/ST-" in url for url in urls)
    n = len(urls)
    assert fetch_her2st_section("C3") == paths
    assert len(urls) == n  # not downloaded again

    with pytest.raises(DkanError, match="no sample section Z9"):
        fetch_her2st_section("Z9")


def test_bundled_checkpoints_load_and_are_small() -> None:
    paths = list_bundled_checkpoints()
    assert sum(p.stat().st_size for p in paths) <= 15e6
    with pytest.raises(CheckpointError, match="No checkpoint kidney is bundled"):
        find_bundled_checkpoint("kidney")
    if not paths:
        pytest.skip("no checkpoint is bundled yet")
    from napari_dkan.model import load_checkpoint

    for path in paths:
        checkpoint = load_checkpoint(path)
        assert find_bundled_checkpoint(path.stem) == path
        assert {"title", "training_data", "splits", "metrics", "licence"} <= set(checkpoint.card)
