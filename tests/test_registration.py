"""Registration of spots: landmarks between two scans, and the check of a registration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import Polygon, box

from napari_dkan.errors import SpotsError
from napari_dkan.inference.predict import find_tissue_region
from napari_dkan.quality.registration_check import RegistrationCheck, check_registration
from napari_dkan.slide import open_slide
from napari_dkan.spatial.coordinates import fit_affine_to_landmarks
from napari_dkan.spatial.spots import Spots
from napari_dkan.training.data.section_loading import read_section_data

TRIANGLE = np.array([[100.0, 200.0], [4100.0, 600.0], [1500.0, 5200.0]])


@given(
    scale=st.floats(0.05, 20),
    rotation=st.floats(-179, 179),
    shift=st.tuples(*[st.floats(-1e5, 1e5)] * 2),
    extra=st.lists(st.tuples(*[st.floats(0, 6000)] * 2), max_size=4),
)
def test_landmarks_recover_scale_rotation_and_shift(scale, rotation, shift, extra) -> None:
    angle = np.deg2rad(rotation)
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    source = np.concatenate([TRIANGLE, np.array(extra).reshape(-1, 2)])
    target = source @ linear.T + shift
    fitted = fit_affine_to_landmarks(source, target)
    assert fitted.scale == pytest.approx(scale, rel=1e-6)
    assert fitted.rotation_deg == pytest.approx(rotation, abs=1e-4)
    assert np.allclose(fitted.apply(source), target, atol=1e-3)
    point = np.array([[2000.0, 2500.0]])
    assert np.allclose(
        fit_affine_to_landmarks(target, source).apply(fitted.apply(point)), point, atol=1e-3
    )


def test_invalid_landmarks_are_refused() -> None:
    def assert_refused(match: str, source, target) -> None:
        with pytest.raises(SpotsError, match=match):
            fit_affine_to_landmarks(source, target)

    line = np.array([[0.0, 0.0], [1000.0, 1000.0], [3000.0, 3010.0]])
    assert_refused("too few", TRIANGLE[:2], TRIANGLE[:2])
    assert_refused("give pairs", TRIANGLE, TRIANGLE[:2])
    assert_refused("second image lie in one line", TRIANGLE, line)
    assert_refused("first image lie in one line", line, TRIANGLE)
    assert_refused("first image lie in one line", np.ones((3, 2)), TRIANGLE)
    assert_refused("no finite position", TRIANGLE, TRIANGLE * np.nan)
    assert_refused("mirror", TRIANGLE, TRIANGLE[[1, 0, 2]])  # two points exchanged
    assert_refused("stretch", TRIANGLE, TRIANGLE * [1, 3])
    assert_refused("scale the section 1e\\+03 times", TRIANGLE, TRIANGLE * 1000)


@pytest.fixture(scope="module")
def sections(data_dir: Path):
    """Spots of C3 and C2, and the slide of C3: width, height, mpp and tissue."""
    folder = data_dir / "her2st"
    spots = {}
    for data in read_section_data(folder, ["C2", "C3"]):
        array = data.obs[["array_col", "array_row"]].to_numpy()
        spots[data.uns["section"]] = Spots(data.obsm["spatial"], array, (), 100.0, 200.0)
        mpp, image = data.uns["mpp"], data.uns["image"]
    with open_slide(image) as slide:
        slide_info = slide.width, slide.height, mpp, find_tissue_region(slide, mpp)
    return spots, slide_info


def test_registrations_of_a_real_section(sections) -> None:
    spots, slide_info = sections
    right = spots["C3"]

    def check(moved_spots: Spots) -> RegistrationCheck:
        return check_registration(moved_spots, *slide_info)

    found = check(right)
    assert found.warning == "" and not found.off_tissue.any()
    assert found.fitted_mpp == pytest.approx(slide_info[2], rel=0.01)
    assert (
        "lie off the tissue: the coordinates may be another slide's" in check(spots["C2"]).warning
    )
    mm = 1000 / slide_info[2]
    for east, south in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        moved = check(replace(right, xy=right.xy + np.array([east, south]) * mm))
        assert moved.warning and moved.off_tissue.mean() > 0.3
        near = check(replace(right, xy=right.xy + np.array([east, south]) * 0.4 * mm))
        assert "lie off the tissue" in near.warning
    half = check(replace(right, xy=right.xy / 2))
    assert "fits 1.37 um per pixel, the slide has 0.687" in half.warning
    # Without a pixel size of the slide the tissue shows that the registration is wrong.
    assert check_registration(
        replace(right, xy=right.xy / 2), *slide_info[:2], None, slide_info[3]
    ).warning
    assert "off the slide" in check(replace(right, xy=right.xy * 2)).warning
    swapped = check(replace(right, xy=right.xy[:, ::-1].copy()))
    assert "as if x and y were swapped" in swapped.warning


def test_check_with_little_information() -> None:
    spots = Spots(np.array([[10.0, 10.0], [90.0, 90.0]]))
    found = check_registration(spots, 100, 100, None, None)
    assert (found.warning, found.fitted_mpp) == ("", None) and not found.off_tissue.any()
    found = check_registration(spots, 100, 100, 1.0, box(0, 0, 50, 50))
    assert found.off_tissue.tolist() == [False, True] and "1 of 2 spots" in found.warning
    wide = replace(spots, diameter_um=120.0)  # its edge reaches the tissue
    assert not check_registration(wide, 100, 100, 1.0, box(0, 0, 50, 50)).off_tissue.any()
    assert "No tissue was found" in check_registration(spots, 100, 100, 1.0, Polygon()).warning
    off = check_registration(spots, 50, 50, 1.0, None)
    assert off.off_slide.tolist() == off.off_tissue.tolist() == [False, True]
