"""Sections that are loaded in the window: micrometres and several sections, in its words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_dkan.errors import SpotsError

from .known_section import MPP, KnownSection
from .slide_files import picture, tiff

pytest.importorskip("napari")

from napari_dkan.viewer.panels.quality.data.section_finder import find_candidates
from napari_dkan.viewer.panels.quality.data.section_loader import read_section
from napari_dkan.viewer.panels.quality.data.slide_matching import find_section_mpp


def write_files(folder: Path, columns: dict[str, object]) -> tuple[Path, Path]:
    """Counts as an h5ad without positions, and a table of spots."""
    section = KnownSection()
    data = section.anndata()
    del data.obsm["spatial"]
    data.write_h5ad(folder / "c.h5ad")
    table = section.table[["barcode"]].assign(**columns)
    table.to_csv(folder / "c_spots.csv", index=False)
    return folder / "c.h5ad", folder / "c_spots.csv"


def test_micrometres_are_converted_by_the_slide(tmp_path: Path) -> None:
    um = KnownSection().xy * MPP
    files = write_files(tmp_path, {"Centroid X µm": um[:, 0], "Centroid Y µm": um[:, 1]})
    (candidate,) = find_candidates(files)
    read = read_section(candidate, lambda: MPP)
    np.testing.assert_allclose(read.data.obsm["spatial"], KnownSection().xy)
    with pytest.raises(SpotsError, match="DKAN: predict, under Slide") as caught:
        read_section(candidate)
    assert "--" not in str(caught.value)


def test_the_size_of_the_slide_is_the_one_its_file_states(tmp_path: Path) -> None:
    per_cm = (20_000, 20_000)
    image = tiff(tmp_path / "a.tif", picture(), resolution=per_cm, resolutionunit="CENTIMETER")
    assert find_section_mpp(image, (), None) == pytest.approx(0.5)
    assert find_section_mpp(tiff(tmp_path / "b.tif", picture(seed=3)), (), None) is None
    assert find_section_mpp(None, (), None) is None


def test_sections_of_a_table_of_spots_are_offered(tmp_path: Path) -> None:
    xy, half = KnownSection().xy, np.arange(36) < 18
    library = np.where(half, "A", "B")
    files = write_files(tmp_path, {"x": xy[:, 0], "y": xy[:, 1], "library_id": library})
    candidates = find_candidates(files)
    assert [c.name for c in candidates] == ["c A", "c B"]
    for candidate, rows in zip(candidates, (half, ~half), strict=True):
        np.testing.assert_allclose(read_section(candidate).data.obsm["spatial"], xy[rows])
