"""The drawing tool draws stained tissue whose simulated expression follows the image."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from synthetic_section import SAMPLE_SEED, SyntheticSection, draw_section, write_her2st_section

from napari_dkan.errors import DkanError, OutputError
from napari_dkan.expression.readers.layouts.her2st_sections import read_her2st_section
from napari_dkan.samples import get_synthetic_section
from napari_dkan.slide import open_slide

SIZE = 2000  # px; 1,000 um is small, quick, and still holds every kind of tissue


@pytest.fixture(scope="module")
def section() -> SyntheticSection:
    return draw_section(7, SIZE)


@pytest.fixture(scope="module")
def others() -> list[SyntheticSection]:
    return [draw_section(seed, SIZE) for seed in (1, 2, 3)]


def test_same_seed_gives_same_section(
    section: SyntheticSection, others: list[SyntheticSection]
) -> None:
    again = draw_section(7, SIZE)
    assert np.array_equal(again.image, section.image)
    assert np.array_equal(again.counts, section.counts)
    assert np.array_equal(again.spots.xy, section.spots.xy)
    assert np.abs(others[0].image.astype(int) - section.image).mean() > 10


def test_image_is_stained_tissue_on_bare_glass(section: SyntheticSection) -> None:
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


def test_expression_follows_the_image(others: list[SyntheticSection]) -> None:
    share, dark, pale = [], [], []
    for section in others:
        counts = section.counts / section.counts.sum(1, keepdims=True)
        surprise = counts - section.expected_shares  # no bias, and far less than the differences
        assert np.abs(surprise.mean(0)).max() < 0.25 * section.expected_shares.std(0).max()
        assert (surprise.std(0) < section.expected_shares.std(0))[4:].mean() > 0.8
        share.append(counts)
        for x, y in section.spots.xy.round().astype(int):
            spot = section.image[y - 100 : y + 100, x - 100 : x + 100].astype(float)
            dark.append((spot[..., 0] < 140).mean())  # nuclei
            pale.append((spot.min(-1) > 215).mean())  # empty: fat, lumen
    gene = dict(zip(others[0].symbols, np.concatenate(share).T, strict=True))

    def correlation(symbol: str, amount: list[float]) -> float:
        return float(np.corrcoef(gene[symbol], amount)[0, 1])

    assert correlation("KRT8", dark) > 0.6
    assert correlation("ERBB2", dark) > 0.5
    assert correlation("FABP4", pale) > 0.8
    solid = np.array(pale) < 0.3
    assert np.corrcoef(gene["COL1A1"][solid], np.array(dark)[solid])[0, 1] < -0.5
    assert abs(correlation("GAPDH", dark)) < 0.3
    assert abs(correlation("ACTB", pale)) < 0.3


def test_files_are_a_her2st_section_with_a_pyramid(
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
        assert b"simulated" in path.read_bytes()
    with pytest.raises(OutputError, match="not empty"):
        write_her2st_section(section, tmp_path / "made", "X7")


def test_failed_write_leaves_nothing(
    section: SyntheticSection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compress_on_full_disk(*_args: object, **_options: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gzip, "compress", compress_on_full_disk)  # after the image is written
    with pytest.raises(OutputError, match="No space left"):
        write_her2st_section(section, tmp_path / "X8", "X8")
    assert not list(tmp_path.iterdir())


def test_same_section_gives_same_bytes(section: SyntheticSection, tmp_path: Path) -> None:
    first, second = (write_her2st_section(section, tmp_path / name, "X7") for name in "ab")
    assert first.image.read_bytes() == second.image.read_bytes()
    assert first.counts.read_bytes() == second.counts.read_bytes()
    assert first.spots.read_bytes() == second.spots.read_bytes()


def test_shipped_section_is_drawn_by_this_tool(tmp_path: Path) -> None:
    section = draw_section(SAMPLE_SEED)
    drawn, shipped = write_her2st_section(section, tmp_path / "X7", "X7"), get_synthetic_section()
    assert drawn.title == shipped.title
    for table in ("spots", "counts"):
        written = read_table(getattr(drawn, table))
        assert written == read_table(getattr(shipped, table))
    with open_slide(shipped.image) as slide:
        pixels = slide.read_region(1500, 1500, 1000, 800).astype(int)
    assert np.abs(pixels - section.image[1500:2300, 1500:2500]).mean() < 5


def read_table(path: Path) -> list[str]:
    """Lines of a table; git may change their ends on Windows."""
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode().splitlines()


@pytest.mark.parametrize(("size", "mpp"), [(4608, 0.1), (4608, 2), (400, 0.5), (4607, 0.5)])
def test_unsupported_sizes_are_refused(size: int, mpp: float) -> None:
    with pytest.raises(DkanError, match="not offered"):
        draw_section(1, size, mpp)
