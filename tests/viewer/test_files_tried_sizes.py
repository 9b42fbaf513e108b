"""The quality panel refuses a slide and a section whose pixel sizes contradict each other."""

from __future__ import annotations

import anndata
import numpy as np
import pytest
import tifffile

from napari_dkan.errors import SlideError
from napari_dkan.slide import open_slide
from napari_dkan.slide.pixel_size import SizeClaim
from napari_dkan.viewer.panels.quality.data import slide_matching
from napari_dkan.viewer.panels.quality.data.loaded_section import LoadedSection


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "S.tif"
    tifffile.imwrite(
        path, np.full((512, 512, 3), 200, np.uint8), photometric="rgb", metadata=None,
        resolution=(1e5, 1e5), resolutionunit="CENTIMETER",
    )  # fmt: skip
    return path


def section(image, mpp: float, origin: str = "spot array") -> LoadedSection:
    xy = np.array([[100.0, 100], [400, 100], [100, 400], [400, 400]])
    data = anndata.AnnData(np.ones((4, 1), np.float32), obsm={"spatial": xy})
    claims = (SizeClaim(mpp, origin),)
    return LoadedSection("S", data, image, xy, image, mpp, source_claims=claims)


def test_a_tag_that_is_wrong_by_ten_is_refused(image):
    said = r"S\.tif disagree: 0\.1 um/px \(TIFF resolution\) and 1 um/px \(spot array\); open the"
    with pytest.raises(SlideError, match=said):
        slide_matching.match_slide(section(image, 1.0), [], None)
    assert slide_matching.match_slide(section(image, 0.105), [], None) is not None
    entered = section(image, 1.0, "entered by hand")
    assert slide_matching.match_slide(entered, [], None) is not None


def test_a_size_that_was_entered_before_decides(image, monkeypatch):
    from napari_dkan.slide import PixelSize

    monkeypatch.setattr(
        slide_matching, "recall_pixel_size", lambda slide: PixelSize(1.0, "entered before")
    )
    match = slide_matching.match_slide(section(image, 1.0), [], None)
    assert match is not None and match.slide.fingerprint() == open_slide(image).fingerprint()
