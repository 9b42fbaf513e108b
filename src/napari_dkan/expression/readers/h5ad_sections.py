"""Sections in h5ad files: single files, and HEST-1k (Jaume et al. 2024).

HEST-1k: ``st/ID.h5ad``, ``wsis/ID.tif``, ``metadata/ID.json``. Other h5ad files need spot
positions in ``obsm['spatial']``.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .anndata_io import constant_obs_value, counts_from_anndata, read_h5ad_file, spots_from_anndata
from .image_files import find_image_by_stem
from .metadata import MPP_KEYS, find_value, read_json_object, to_positive_float
from .section_anndata import SectionEntry, SectionMetadata, build_section

if TYPE_CHECKING:
    from anndata import AnnData


def find_h5ad_sections(root: Path) -> tuple[SectionEntry, ...]:
    """The h5ad itself, or those of a folder."""
    files = [root] if root.suffix == ".h5ad" else sorted(root.glob("*.h5ad"))
    return tuple(
        SectionEntry(f.stem, "", "h5ad", partial(read_h5ad_section, f))
        for f in files
        if f.is_file() and not f.name.startswith(".")
    )


def read_h5ad_section(path: str | Path, image: str | Path | None = None) -> AnnData:
    """A section from an h5ad; see `section.build_section` for what it holds.

    Counts come from ``layers['counts']``, else ``raw`` or ``X``, whichever holds whole numbers.
    The image is `image`, the file that ``uns['image']`` names, or one of the same stem beside
    the h5ad. Pixel size, pitch, diameter and patient are taken from ``uns``, at the top or
    inside. Missing array coordinates are derived from positions on a regular lattice.

    Raises SpotsError when there are no positions or no raw counts.
    """
    path = Path(path)
    data = read_h5ad_file(path)
    spots, notes = spots_from_anndata(data, path)
    found = str(image) if image is not None else _find_h5ad_image(data, path)
    if not found:
        notes["image_note"] = f"no image is named in {path.name} or lies beside it"
    about = SectionMetadata(
        path.stem,
        find_value(data.uns, ("patient",), str) or constant_obs_value(data, "patient"),
        found,
        find_value(data.uns, MPP_KEYS),
        "h5ad metadata",
        notes,
    )
    return build_section(counts_from_anndata(data, path), spots, about, path)


def _find_h5ad_image(data: AnnData, path: Path) -> str:
    named = data.uns.get("image")
    if isinstance(named, str) and named and (path.parent / named).exists():
        return str(path.parent / named)
    beside = find_image_by_stem(path.parent, path.stem)
    return "" if beside is None else str(beside)


def find_hest_sections(root: Path) -> tuple[SectionEntry, ...]:
    """The samples of a HEST folder, in the order of their ids."""
    return tuple(
        SectionEntry(f.stem, "", "HEST-1k", partial(read_hest_section, root, f.stem))
        for f in sorted((root / "st").glob("*.h5ad"))
    )


def read_hest_section(root: str | Path, sample: str) -> AnnData:
    """A sample; see `section.build_section` for what it holds.

    The pixel size is HEST's estimate, checked against the array (``uns['mpp_note']`` tells when
    they differ); spot diameter and distance are those of its metadata.

    Raises SpotsError when the h5ad or the metadata are not readable.
    """
    root = Path(root)
    path = root / "st" / f"{sample}.h5ad"
    meta: dict[str, Any] = {}
    if (root / "metadata" / f"{sample}.json").is_file():
        meta = read_json_object(root / "metadata" / f"{sample}.json")
    data = read_h5ad_file(path)
    spots, notes = spots_from_anndata(data, path)
    diameter, pitch = (
        to_positive_float(meta.get(key)) for key in ("spot_diameter", "inter_spot_dist")
    )
    spots = replace(
        spots, diameter_um=diameter or spots.diameter_um, pitch_um=pitch or spots.pitch_um
    )
    image = find_image_by_stem(root / "wsis", sample)
    if image is None:
        notes["image_note"] = f"there is no wsis/{sample}.tif"
    patient = meta.get("patient")
    about = SectionMetadata(
        sample,
        patient if isinstance(patient, str) else "",
        "" if image is None else str(image),
        to_positive_float(meta.get("pixel_size_um_estimated"))
        or to_positive_float(meta.get("pixel_size_um_embedded")),
        "HEST metadata",
        notes,
    )
    return build_section(counts_from_anndata(data, path), spots, about, path)
