"""HEST-1k (Jaume et al. 2024): ``st/ID.h5ad``, ``wsis/ID.tif``, ``metadata/ID.json``."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .annotated import counts_in, open_h5ad, spots_in
from .found import FoundSection
from .imagefile import same_stem
from .section import About, build_section
from .stated import positive, read_json

if TYPE_CHECKING:
    from anndata import AnnData


def find(root: Path) -> tuple[FoundSection, ...]:
    """The samples of a HEST folder, in the order of their ids."""
    return tuple(
        FoundSection(f.stem, "", "HEST-1k", partial(read_hest, root, f.stem))
        for f in sorted((root / "st").glob("*.h5ad"))
    )


def read_hest(root: str | Path, sample: str) -> AnnData:
    """A sample; see `section.build_section` for what it holds.

    The pixel size is HEST's estimate, checked against the array (``uns['mpp_note']`` tells when
    they differ); spot diameter and distance are those of its metadata.

    Raises SpotsError when the h5ad or the metadata are not readable.
    """
    root = Path(root)
    path = root / "st" / f"{sample}.h5ad"
    meta: dict[str, Any] = {}
    if (root / "metadata" / f"{sample}.json").is_file():
        meta = read_json(root / "metadata" / f"{sample}.json")
    data = open_h5ad(path)
    spots, notes = spots_in(data, path)
    diameter, pitch = (positive(meta.get(key)) for key in ("spot_diameter", "inter_spot_dist"))
    spots = replace(
        spots, diameter_um=diameter or spots.diameter_um, pitch_um=pitch or spots.pitch_um
    )
    image = same_stem(root / "wsis", sample)
    if image is None:
        notes["image_note"] = f"there is no wsis/{sample}.tif"
    patient = meta.get("patient")
    about = About(
        sample,
        patient if isinstance(patient, str) else "",
        "" if image is None else str(image),
        positive(meta.get("pixel_size_um_estimated"))
        or positive(meta.get("pixel_size_um_embedded")),
        "HEST metadata",
        notes,
    )
    return build_section(counts_in(data, path), spots, about, path)
