"""Tissue: found where spots were measured, not in smears, printed spots or empty glass."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from scipy.spatial import cKDTree

from napari_dkan.slide import open_slide
from napari_dkan.slide.tissue import TissueMask, find_tissue

SECTION_MPP = 0.688


def spots_of(data_dir, section):
    path = data_dir / "her2st" / "ST-spotfiles" / f"{section}_selection.tsv"
    with path.open() as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["selected"] == "1"]
    return np.array([[float(row["pixel_x"]), float(row["pixel_y"])] for row in rows])


@pytest.mark.parametrize(
    ("section", "mpp"),
    [(section, SECTION_MPP) for section in ("C2", "C3", "C4", "C5")] + [("C3", None)],
)
def test_sections(section, mpp, data_dir):
    """Spots lie on tissue; smear, printed spots and dirt far from any spot do not."""
    spots = spots_of(data_dir, section)
    with open_slide(next((data_dir / "her2st" / "ST-imgs" / "C" / section).glob("*.jpg"))) as slide:
        tissue = find_tissue(slide, mpp)
    assert tissue.contains(spots).mean() > 0.97
    if mpp:
        assert tissue.fraction(spots, 154 / mpp).mean() > 0.95

    rows, columns = np.nonzero(tissue.mask)
    centres = (np.stack([columns, rows], axis=1) + 0.5) * tissue.downsample
    distance, _ = cKDTree(spots).query(centres)
    assert (distance * SECTION_MPP > 300).mean() < 0.005

    outline = tissue.polygons()
    assert len(outline.geoms) == 1 and outline.is_valid
    assert outline.area == pytest.approx(tissue.mask.sum() * tissue.downsample**2, rel=0.01)


def test_crop_is_nearly_all_tissue(data_dir):
    with open_slide(data_dir / "her2st" / "crop" / "C3_crop.ome.tif") as slide:
        tissue = find_tissue(slide, slide.mpp)
    assert 0.93 < tissue.mask.mean() < 0.98
    assert not tissue.contains([[60, 2500]]).any()  # bare glass, lower left


@pytest.mark.parametrize("mpp", [0.499, None])
def test_svs(mpp, data_dir):
    with open_slide(data_dir / "wsi" / "CMU-1-Small-Region.svs") as slide:
        tissue = find_tissue(slide, mpp)
    assert 0.37 < tissue.mask.mean() < 0.43
    skin = [[800, 2400], [1200, 1100], [1500, 2600], [1000, 1700]]
    glass = [[200, 400], [200, 2400], [2100, 600], [2050, 2300]]
    assert tissue.contains(skin).all() and not tissue.contains(glass).any()


def glass(kind, rng, size=1600):
    """Slides without tissue."""
    y, x = np.mgrid[:size, :size] / size
    image = np.full((size, size, 3), 255.0)
    if kind == "smear":
        spread = np.exp(-((x - 0.6) ** 2 + (y - 0.5) ** 2) / 0.03)[..., None]
        image = np.array([238, 225, 238]) - spread * np.array([0, 70, 30])
        image = image + rng.normal(0, 8, image.shape)
    elif kind == "printed spots":
        dots = ((x * 32 % 1 - 0.5) ** 2 + (y * 32 % 1 - 0.5) ** 2 < 0.1)[..., None]
        image = np.array([236, 226, 238]) - dots * 14 + rng.normal(0, 6, (size, size, 3))
    elif kind == "blurred dirt":
        image = 240 - 150 * np.exp(-((x - 0.4) ** 2 + (y - 0.3) ** 2) / 0.006)[..., None]
        image = image + rng.normal(0, 5, (size, size, 3))
    elif kind == "dust":
        dark = ndimage.maximum_filter(rng.random((size, size)) < 2e-5, 14)[..., None]
        image = image - dark * 200
    elif kind == "black":
        image = image * 0
    return np.clip(image, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("mpp", [1.0, None])
@pytest.mark.parametrize(
    "kind", ["white", "smear", "printed spots", "blurred dirt", "dust", "black"]
)
def test_no_tissue(kind, mpp, tmp_path):
    Image.fromarray(glass(kind, np.random.default_rng(0))).save(tmp_path / "glass.png")
    with open_slide(tmp_path / "glass.png") as slide:
        tissue = find_tissue(slide, mpp)
    assert not tissue.mask.any()
    assert tissue.polygons().is_empty
    assert not tissue.contains([[100, 100]]).any()
    assert tissue.fraction([[100, 100]], 50).tolist() == [0]


def test_tear_stays_open_and_gap_closes(tmp_path):
    """Cells on white glass, with a hole of 500 um and fat cells of 60 um."""
    rng = np.random.default_rng(0)
    size = 2000
    y, x = np.mgrid[:size, :size]
    cells = ndimage.gaussian_filter(rng.normal(size=(size, size)), 4) > 0.02
    section = np.where(cells[..., None], [110, 70, 150], [225, 170, 205])
    inside = (x - 1000) ** 2 + (y - 1000) ** 2 < 800**2
    tear = (x - 1000) ** 2 + (y - 1000) ** 2 < 250**2
    fat = (x % 400 - 200) ** 2 + (y % 400 - 200) ** 2 < 30**2
    image = np.where((inside & ~tear & ~fat)[..., None], section, 250).astype(np.uint8)
    Image.fromarray(image).save(tmp_path / "ring.png")
    with open_slide(tmp_path / "ring.png") as slide:
        tissue = find_tissue(slide, 1.0)
    truth = np.pi * (800**2 - 250**2)
    outline = tissue.polygons()
    assert len(outline.geoms) == 1 and len(outline.geoms[0].interiors) == 1
    assert outline.area == pytest.approx(truth, rel=0.03)
    assert not tissue.contains([[1000, 1000], [50, 50], [-5, 900], [900, 2001]]).any()
    assert tissue.contains([[1000, 500], [600, 600], [1400, 1400]]).all()


class TestMask:
    mask = TissueMask(np.array([[0, 1, 1], [0, 0, 1]], bool), 10.0)

    def test_contains_counts_from_corners(self):
        points = [[9.9, 5], [10, 5], [29.9, 19.9], [30, 5], [15, 15], [-0.1, 5], [25, 20]]
        assert self.mask.contains(points).tolist() == [0, 1, 1, 0, 0, 0, 0]

    def test_fraction_is_the_exact_area(self):
        centres = [[15, 5], [20, 10], [20, 5], [25, 20], [-50, 0]]
        assert self.mask.fraction(centres, 10) == pytest.approx([1, 0.75, 1, 0.5, 0])
        assert self.mask.fraction([[12, 6]], 6) == pytest.approx([5 / 6])
        assert self.mask.fraction([[15, 10]], 1000) == pytest.approx([300 / 1e6])

    def test_polygons_follow_the_pixels(self):
        big = np.zeros((40, 50), bool)
        big[5:30, 10:40] = True
        big[12:20, 20:30] = False
        outline = TissueMask(big, 8.0).polygons()
        assert outline.bounds == pytest.approx((80, 40, 320, 240), abs=8)
        assert outline.area == pytest.approx((25 * 30 - 80) * 64, rel=0.03)
        assert len(outline.geoms[0].interiors) == 1
