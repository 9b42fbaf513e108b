"""Sections in the layout of the her2st study (Andersson et al. 2021)."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import SpotsError
from .arrayfit import ST_PITCH_UM, fit_mpp
from .countfile import read_counts
from .counts import round_grid_names
from .found import SectionEntry
from .section import SectionMetadata, build_section
from .spotfile import read_spots
from .tables import numeric_columns, read_table

if TYPE_CHECKING:
    from anndata import AnnData

_TSV_SUFFIXES = (".tsv.gz", ".tsv")


def find_her2st_root(root: str | Path) -> Path:
    """The folder with ``ST-cnts``: the root or its ``her2st``."""
    root = Path(root)
    inner = root / "her2st"
    return inner if not (root / "ST-cnts").is_dir() and (inner / "ST-cnts").is_dir() else root


def patient_from_section_name(section: str) -> str:
    """Patient of a section name: ``C`` of ``C3``, ``P2`` of ``P2_ST_rep1``, "" where neither."""
    match = re.fullmatch(r"([A-Za-z])\d+|([^_]+)_.*", section)
    return next((group for group in match.groups() if group), "") if match else ""


def find_her2st_sections(root: Path) -> tuple[SectionEntry, ...]:
    """The sections that have counts in ``ST-cnts``."""
    files = [p for end in _TSV_SUFFIXES for p in (find_her2st_root(root) / "ST-cnts").glob(f"*{end}")]
    names = sorted({p.name.removesuffix(".gz").removesuffix(".tsv") for p in files})
    return tuple(
        SectionEntry(name, patient_from_section_name(name), "her2st", partial(read_her2st_section, root, name))
        for name in names
        if not name.startswith(".")
    )


def find_her2st_files(root: str | Path, section: str) -> tuple[Path, Path, Path]:
    """Image, counts and spot file of a section.

    root : a folder with ``ST-imgs``, ``ST-cnts`` and ``ST-spotfiles``, or one that holds it as
        ``her2st``.

    Raises SpotsError naming what is missing.
    """
    root = find_her2st_root(root)
    counts = next(
        (p for end in _TSV_SUFFIXES if (p := root / "ST-cnts" / f"{section}{end}").is_file()),
        None,
    )
    if counts is None:
        raise SpotsError(
            f"{root} has no counts of section {section}; expected ST-cnts/{section}.tsv.gz in it."
        )
    spots = root / "ST-spotfiles" / f"{section}_selection.tsv"
    if not spots.is_file():
        raise SpotsError(f"{spots} does not exist; it holds the spot positions of {section}.")
    folder = root / "ST-imgs" / section[:1] / section
    images = sorted(p for p in folder.glob("*") if p.is_file() and not p.name.startswith("."))
    if len(images) != 1:
        found = "no image" if not images else f"{len(images)} images"
        raise SpotsError(f"{folder} holds {found}; exactly one is expected.")
    return images[0], counts, spots


def read_her2st_section(root: str | Path, section: str) -> AnnData:
    """One section: raw counts, spot positions, image and pixel size.

    Returns an AnnData of the spots that have both counts and a position, named ``XxY``; see
    `section.build_section` for what it holds. The pixel size is fitted on the array.

    Raises SpotsError naming the file that is missing or not as expected.
    """
    image, counts_path, spots_path = find_her2st_files(root, section)
    spots = read_spots(spots_path)
    mpp = mpp_from_selection_file(spots_path)
    if mpp is None:
        raise SpotsError(
            f"{spots_path} is not a her2st spot file; it needs x, y, pixel_x, pixel_y."
        )
    counts = read_counts(counts_path)
    if round_grid_names(counts.spot_names) is None:
        raise SpotsError(f"{counts_path}: the first column must hold spot names like 10x12.")
    about = SectionMetadata(section, patient_from_section_name(section), str(image), mpp, "spot array")
    return build_section(counts, spots, about, spots_path)


def mpp_from_selection_file(path: Path) -> float | None:
    """Pixel size from a her2st spot file, None when it is another kind of file.

    The study's own fit of the array (``new_x, new_y``) follows the printed spots more closely
    than the whole coordinates do, so it is preferred.

    Raises SpotsError when the spots do not span a plane.
    """
    table = read_table(path)
    if not {"x", "y", "pixel_x", "pixel_y"} <= set(table.columns):
        return None
    fitted = ["new_x", "new_y"] if {"new_x", "new_y"} <= set(table.columns) else ["x", "y"]
    try:
        return fit_mpp(
            numeric_columns(table, fitted, path), numeric_columns(table, ["pixel_x", "pixel_y"], path), ST_PITCH_UM
        )
    except SpotsError as error:
        if str(path) in str(error):
            raise
        raise SpotsError(f"{path}: {error}") from error
