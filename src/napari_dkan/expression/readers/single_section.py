"""One section from separate files: image, counts and spots."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import SpotsError
from .anndata_io import infer_array, read_h5ad_file
from .count_files import read_counts
from .h5ad_sections import read_h5ad_section
from .her2st_sections import mpp_from_selection_file
from .metadata import MPP_KEYS, find_value, read_scale_factors
from .section_anndata import SectionMetadata, build_section
from .spot_files import read_spots

if TYPE_CHECKING:
    from anndata import AnnData


def read_single_section(
    image: str | Path | None, counts: str | Path, spots: str | Path | None = None
) -> AnnData:
    """A section from separate files; see `section.build_section` for what it holds.

    image : the full-resolution slide; None takes the one beside an h5ad, if any.
    counts : whatever `countfile.read_counts` takes.
    spots : whatever `spotfile.read_spots` takes; may be left out when `counts` is an h5ad with
        ``obsm['spatial']``.

    Spots are matched with the counts by name; spots without a name go by their array
    coordinates, ``XxY``. The pixel size is that of the files (scale factors beside the spots,
    ``uns`` of the h5ad), else that of the array.

    Raises SpotsError when a file is missing or bad, or the files share no spot.
    """
    counts = Path(counts)
    if image is not None and not Path(image).exists():
        raise SpotsError(f"{image} does not exist; check the path of the image.")
    if spots is None:
        if counts.suffix != ".h5ad":
            raise SpotsError(
                f"{counts.name} does not say where its spots are; give a file with their positions."
            )
        return read_h5ad_section(counts, image)
    path = Path(spots)
    placed, notes = infer_array(read_spots(path), path)
    if not placed.names and placed.array_coords is not None:
        placed = replace(placed, names=tuple(f"{x}x{y}" for x, y in placed.array_coords))
    mpp, origin = _read_mpp(path)
    name = counts.name.split(".")[0]
    about = SectionMetadata(name, "", "" if image is None else str(image), mpp, origin, notes)
    return build_section(read_counts(counts), placed, about, path)


def _read_mpp(spots: Path) -> tuple[float | None, str]:
    if spots.suffix == ".h5ad":
        return find_value(read_h5ad_file(spots).uns, MPP_KEYS), "h5ad metadata"
    if spots.name.startswith("tissue_positions"):
        return read_scale_factors(spots.parent).mpp, "Space Ranger's scale factors"
    try:
        return mpp_from_selection_file(spots), "spot array"
    except SpotsError:  # too few spots to fit; the image may state its size
        return None, ""
