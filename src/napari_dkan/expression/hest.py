"""HEST-1k (Jaume et al. 2024): ``st/ID.h5ad``, ``wsis/ID.tif``, ``metadata/ID.json``."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .annotated import counts_from_anndata, read_h5ad_file, spots_from_anndata
from .found import SectionEntry
from .imagefile import find_image_by_stem
from .section import SectionMetadata, build_section
from .stated import to_positive_float, read_json_object

if TYPE_CHECKING:
    from anndata import AnnData


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
    diameter, pitch = (to_positive_float(meta.get(key)) for key in ("spot_diameter", "inter_spot_dist"))
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
