"""The synthetic section is what it claims to be; the real one is checked and fails plainly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_dkan.errors import CheckpointError, DkanError, OutputError
from napari_dkan.expression.readers.her2st_sections import read_her2st_section
from napari_dkan.samples import (
    draw_section,
    fetch_her2st_section,
    find_bundled_checkpoint,
    get_synthetic_section,
    is_her2st_section_local,
    list_bundled_checkpoints,
    write_her2st_section,
)
from napari_dkan.samples import sample_sections as her2st_sample
from napari_dkan.samples.synthetic_section import SyntheticSection
from napari_dkan.slide import open_slide

SIZE = 2000  # px; 1,000 um is small, quick, and still holds every kind of tissue


@pytest.fixture(scope="module")
def section() -> SyntheticSection:
    return draw_section(7, SIZE)


@pytest.fixture(scope="module")
def others() -> list[SyntheticSection]:
    return [draw_section(seed, SIZE) for seed in (1, 2, 3)]


def test_a_seed_gives_one_section(
    section: SyntheticSection, others: list[SyntheticSection]
) -> None:
    again = draw_section(7, SIZE)
    assert np.array_equal(again.image, section.image)
    assert np.array_equal(again.counts, section.counts)
    assert np.array_equal(again.spots.xy, section.spots.xy)
    assert np.abs(others[0].image.astype(int) - section.image).mean() > 10


def test_it_is_stained_tissue_on_bare_glass(section: SyntheticSection) -> None:
    assert section.image.shape == (SIZE, SIZE, 3)
    assert section.image.dtype == np.uint8
    corner = section.image[:60, :60].reshape(-1, 3)
    assert corner.mean(0).min() > 225  # off-white, with a little noise
    assert 0 < corner.std(0).max() < 8
    middle = section.image[SIZE // 4 : -SIZE // 4, SIZE // 4 : -SIZE // 4].reshape(-1, 3)
    stained = middle[middle.min(1) < 200].astype(float)
    assert len(stained) > 0.4 * len(middle)
    red, green, blue = stained.mean(0)
    assert green < blue < red + 20  # pink and purple: green is what the two stains absorb
    nuclei = stained[stained[:, 0] < 120]
    assert 0.02 < len(nuclei) / len(middle) < 0.5
    assert nuclei[:, 2].mean() > nuclei[:, 0].mean()  # blue-purple


def test_expression_follows_what_the_image_shows(others: list[SyntheticSection]) -> None:
    share, dark, pale = [], [], []
    for section in others:
        counts = section.counts / section.counts.sum(1, keepdims=True)
        share.append(counts)
        for x, y in section.spots.xy.round().astype(int):
            spot = section.image[y - 100 : y + 100, x - 100 : x + 100].astype(float)
            dark.append((spot[..., 0] < 140).mean())  # nuclei
            pale.append((spot.min(-1) > 215).mean())  # empty: fat, lumen
    gene = dict(zip(others[0].symbols, np.concatenate(share).T, strict=True))

    def r(symbol: str, seen: list[float]) -> float:
        return float(np.corrcoef(gene[symbol], seen)[0, 1])

    assert r("KRT8", dark) > 0.6
    assert r("ERBB2", dark) > 0.5
    assert r("FABP4", pale) > 0.8
    solid = np.array(pale) < 0.3
    assert np.corrcoef(gene["COL1A1"][solid], np.array(dark)[solid])[0, 1] < -0.5
    assert abs(r("GAPDH", dark)) < 0.3
    assert abs(r("ACTB", pale)) < 0.3


def test_it_is_written_as_a_her2st_section_with_a_pyramid(
    section: SyntheticSection, tmp_path: Path
) -> None:
    paths = write_her2st_section(section, tmp_path / "made", "X7")
    assert paths.image.name.endswith(".ome.tif")
    data = read_her2st_section(paths.root, paths.name)
    assert tuple(data.obs_names) == section.spots.names
    assert tuple(data.var_names) == section.symbols
    assert np.array_equal(data.X.toarray(), section.counts)
    assert np.allclose(data.obsm["spatial"], section.spots.xy, atol=0.01)
    assert data.uns["mpp"] == pytest.approx(0.5, abs=1e-6)
    with open_slide(paths.image) as slide:
        assert slide.pixel_size is not None
        assert slide.pixel_size.mpp == 0.5
        assert "OME" in slide.pixel_size.origin
        assert [level.width for level in slide.levels] == [SIZE, SIZE // 2]
        seen = slide.read_region(900, 1000, 400, 300).astype(int)
        assert np.abs(seen - section.image[1000:1300, 900:1300]).mean() < 5
        small = slide.read_region(0, 0, SIZE // 2, SIZE // 2, level=1).astype(int)
        blocks = section.image.reshape(SIZE // 2, 2, SIZE // 2, 2, 3).mean((1, 3))
        assert np.abs(small - blocks).mean() < 5
    for path in (paths.image, paths.root / "README.txt"):
        assert b"simulated" in path.read_bytes()  # says so wherever it goes
    with pytest.raises(OutputError, match="not empty"):
        write_her2st_section(section, tmp_path / "made", "X7")


def test_the_cached_copy_is_kept_and_mended(
    section: SyntheticSection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_dkan.samples import sample_sections as store

    drawn: list[int] = []

    def draw(seed: int, size_px: int) -> SyntheticSection:
        drawn.append(seed)
        return section

    monkeypatch.setattr(store, "draw_section", draw)
    first = get_synthetic_section(7, SIZE, tmp_path)
    assert get_synthetic_section(7, SIZE, tmp_path) == first
    assert drawn == [7]
    first.counts.unlink()  # someone cleaned up half of the cache
    assert get_synthetic_section(7, SIZE, tmp_path).counts.is_file()
    assert drawn == [7, 7]
    monkeypatch.setattr(store, "DRAWING_VERSION", store.DRAWING_VERSION + 1)
    assert get_synthetic_section(7, SIZE, tmp_path) != first
    assert drawn == [7, 7, 7]

    def full(section: SyntheticSection, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "_write_image", full)
    with pytest.raises(OutputError, match="No space left"):
        get_synthetic_section(8, SIZE, tmp_path)
    assert not [p for p in tmp_path.iterdir() if "-8-" in p.name]


@pytest.mark.parametrize(("size", "mpp"), [(4608, 0.1), (4608, 2), (400, 0.5), (4607, 0.5)])
def test_absurd_sizes_are_refused(size: int, mpp: float) -> None:
    with pytest.raises(DkanError, match="not offered"):
        draw_section(1, size, mpp)


def test_the_real_section_comes_from_the_data_folder(
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
    monkeypatch.setenv("NAPARI_DKAN_DATA", str(copy))  # the layout itself will do too
    assert fetch_her2st_section("C3").counts == copy / "ST-cnts" / "C3.tsv.gz"
    with (copy / "ST-spotfiles" / "C3_selection.tsv").open("a") as file:
        file.write("1\t1\t1\t1\t1\t1\t1\n")
    with pytest.raises(DkanError, match=r"C3_selection\.tsv is not the study's file"):
        fetch_her2st_section("C3")


def test_downloads_are_pinned_checked_and_fail_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hashlib

    import pooch
    import requests

    asked: list[str] = []
    content = {name: name.encode() for name in her2st_sample.HER2ST_SHA256["C3"]}

    class Fake:
        def __init__(self, **options: object) -> None:
            assert options["timeout"] == her2st_sample.DOWNLOAD_TIMEOUT_S  # never waits for ever

        def __call__(self, url: str, output_file: str, pooch: object) -> None:
            asked.append(url)
            if offline:
                raise requests.exceptions.ConnectionError("a\nlong\nstory")
            name = next(n for n in content if url.endswith(n))
            Path(output_file).write_bytes(content[name])

    monkeypatch.setattr(pooch, "HTTPDownloader", Fake)
    monkeypatch.setattr(her2st_sample, "cache_folder", lambda: tmp_path / "cache")
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
    monkeypatch.setitem(her2st_sample.HER2ST_SHA256, "C3", digests)
    paths = fetch_her2st_section("C3")
    assert paths.spots.read_bytes() == b"ST-spotfiles/C3_selection.tsv"
    assert is_her2st_section_local("C3")
    assert all(f"/almaan/her2st/{her2st_sample.HER2ST_COMMIT}/data/ST-" in url for url in asked)
    n = len(asked)
    assert fetch_her2st_section("C3") == paths
    assert len(asked) == n  # kept

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
