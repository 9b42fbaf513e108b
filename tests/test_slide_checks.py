"""Warnings about a pixel size that does not fit the checkpoint."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from napari_dkan.model import PatchGeometry, load_checkpoint
from napari_dkan.quality.slide_checks import check_pixel_size
from napari_dkan.samples.bundled_checkpoints import find_bundled_checkpoint
from napari_dkan.slide import PixelSize

if TYPE_CHECKING:
    from napari_dkan.model.checkpoint.checkpoint_file import Checkpoint


SIZE = 9300, 9900  # px, as the training sections


@pytest.fixture(scope="module")
def bundled():
    return load_checkpoint(find_bundled_checkpoint("her2-breast"))


@pytest.mark.parametrize(
    ("mpp", "origin", "expected"),
    [
        (0.688, "spot array", ""),
        (0.5, "Aperio metadata", ""),
        (0.25, "Aperio metadata", ""),  # a 40x scan
        (0.918, "spot array", ""),  # another patient of the same study
        (0.344, "spot array", ""),
        (0.344, "entered by hand", "2.0 times smaller than"),
        (0.344, "ruler", "if this is none, the pixel size is wrong"),
        (0.344, "TIFF resolution", "2.0 times smaller than"),
        (1.376, "OME metadata", "2.0 times as large as"),
        (6.88, "entered by hand", "10.0 times as large as"),
        (18.0, "OME metadata", "178 mm long"),
        (0.25, "objective power", "only an estimate"),
    ],
)
def test_pixel_sizes_compared_with_the_training_slides(bundled: Checkpoint, mpp, origin, expected):
    warning = check_pixel_size(bundled, PixelSize(mpp, origin), *SIZE)
    assert (warning == "") if not expected else expected in warning
    assert warning == "" or warning.endswith(".")


def test_estimate_is_reported_with_other_warnings(bundled: Checkpoint):
    warning = check_pixel_size(bundled, PixelSize(2.0, "objective power"), *SIZE)
    assert "only an estimate" in warning and "2.9 times as large" in warning


def test_image_smaller_than_a_tile(bundled: Checkpoint):
    assert "100 um wide, less than one tile of 154 um" in check_pixel_size(
        bundled, PixelSize(0.2, "entered by hand"), 500, 4000
    )


def test_patch_size_is_used_without_a_reference(bundled: Checkpoint):
    sharp = replace(bundled, reference=None, patch=PatchGeometry(px=224, um=112.0))
    assert check_pixel_size(sharp, PixelSize(0.25, "entered by hand"), *SIZE) == ""
    warning = check_pixel_size(sharp, PixelSize(1.0, "OME metadata"), *SIZE)
    assert "2.0 times as large as those of the tiles" in warning
