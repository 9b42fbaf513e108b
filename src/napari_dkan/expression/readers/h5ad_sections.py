"""Read sections from h5ad files: single files, and HEST-1k (Jaume et al. 2024).

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
    """Find an h5ad file, or those of a folder."""
    files = [root] if root.suffix == ".h5ad" else sorted(root.glob("*.h5ad"))
    return tuple(
        SectionEntry(f.stem, "", "h5ad", partial(read_h5ad_section, f))
        for f in files
        if f.is_file() and not f.name.startswith(".")
    )


def read_h5ad_section(path: str | Path, image: str | Path | None = None) -> AnnData:
    """Read a section from an h5ad file; see `build_section` for the result.

    Counts come from ``layers['counts']``, else from the first of ``raw`` and ``X`` with whole
    numbers. The image is `image`, the file in ``uns['image']``, or one with the same stem in the
    folder of the h5ad. Pixel size, pitch, diameter and patient are searched in ``uns``, nested
    mappings included. Missing array coordinates are derived from positions on a lattice.

    Raises
    ------
    SpotsError
        There are no positions or no raw counts.
    """
    path = Path(path)
    data = read_h5ad_file(path)
    spots, notes = spots_from_anndata(data, path)
    image_path = str(image) if image is not None else _find_h5ad_image(data, path)
    if not image_path:
        notes["image_note"] = f"no image is named in {path.name} or lies beside it"
    metadata = SectionMetadata(
        path.stem,
        find_value(data.uns, ("patient",), str) or constant_obs_value(data, "patient"),
        image_path,
        find_value(data.uns, MPP_KEYS),
        "h5ad metadata",
        notes,
    )
    return build_section(counts_from_anndata(data, path), spots, metadata, path)


def _find_h5ad_image(data: AnnData, path: Path) -> str:
    file_name = data.uns.get("image")
    if isinstance(file_name, str) and file_name and (path.parent / file_name).exists():
        return str(path.parent / file_name)
    image_path = find_image_by_stem(path.parent, path.stem)
    return "" if image_path is None else str(image_path)


def find_hest_sections(root: Path) -> tuple[SectionEntry, ...]:
    """Find the samples of a HEST folder, in the order of their ids."""
    return tuple(
        SectionEntry(f.stem, "", "HEST-1k", partial(read_hest_section, root, f.stem))
        for f in sorted((root / "st").glob("*.h5ad"))
    )


def read_hest_section(root: str | Path, sample: str) -> AnnData:
    """Read a HEST sample; see `build_section` for the result.

    The pixel size is HEST's estimate; ``uns['mpp_note']`` states if the array gives another one.
    Spot diameter and distance are those of the metadata.

    Raises
    ------
    SpotsError
        The h5ad or the metadata cannot be read.
    """
    root = Path(root)
    path = root / "st" / f"{sample}.h5ad"
    stated: dict[str, Any] = {}
    if (root / "metadata" / f"{sample}.json").is_file():
        stated = read_json_object(root / "metadata" / f"{sample}.json")
    data = read_h5ad_file(path)
    spots, notes = spots_from_anndata(data, path)
    diameter, pitch = (
        to_positive_float(stated.get(key)) for key in ("spot_diameter", "inter_spot_dist")
    )
    spots = replace(
        spots, diameter_um=diameter or spots.diameter_um, pitch_um=pitch or spots.pitch_um
    )
    image = find_image_by_stem(root / "wsis", sample)
    if image is None:
        notes["image_note"] = f"there is no wsis/{sample}.tif"
    patient = stated.get("patient")
    metadata = SectionMetadata(
        sample,
        patient if isinstance(patient, str) else "",
        "" if image is None else str(image),
        to_positive_float(stated.get("pixel_size_um_estimated"))
        or to_positive_float(stated.get("pixel_size_um_embedded")),
        "HEST metadata",
        notes,
    )
    return build_section(counts_from_anndata(data, path), spots, metadata, path)
