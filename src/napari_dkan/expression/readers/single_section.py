"""One section from separate files: image, counts and spots."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import SpotsError
from ..tables.count_files import read_counts
from ..tables.spot_files import list_table_libraries, read_spots
from ..tables.table_files import names_from_array_coords
from .anndata_io import infer_array, read_h5ad_file
from .layouts.h5ad_sections import read_h5ad_section
from .layouts.her2st_sections import mpp_from_selection_file
from .layouts.space_ranger_sections import (
    find_output_counts,
    find_output_folder,
    read_prefixed_sample,
    read_space_ranger_section,
)
from .library_choice import list_file_libraries, select_library
from .metadata import MPP_KEYS, POSITIONS_NAME, find_value, read_scale_factors_beside
from .prefixed_files import find_prefixed_samples
from .section_anndata import SectionMetadata, build_section

if TYPE_CHECKING:
    from anndata import AnnData


def read_single_section(
    image: str | Path | None,
    counts: str | Path,
    spots: str | Path | None = None,
    library: str | None = None,
    mpp: float | None = None,
) -> AnnData:
    """Read a section from separate files; see `build_section` for the result.

    Spots are matched with the counts by name; spots without a name by their array coordinates,
    ``XxY``. The pixel size is that of the files (scale factors in the folder of the spots,
    ``uns`` of an h5ad), else that of the array.

    Parameters
    ----------
    image
        The full-resolution slide; None for the one in the folder of an h5ad, if any.
    counts
        A file or folder that `read_counts` accepts, or a folder of Space Ranger.
    spots
        A file that `read_spots` accepts; not needed if `counts` is an h5ad with
        ``obsm['spatial']``, or a folder of Space Ranger.
    library
        Name of the section, where an h5ad holds several.
    mpp
        um per px of the image, for positions in micrometres.

    Raises
    ------
    SpotsError
        A file is missing or invalid, or counts and positions have no spot in common.
    """
    counts = Path(counts)
    if image is not None and not Path(image).exists():
        raise SpotsError(f"{image} does not exist; check the path of the image.")
    output = find_output_folder(counts) if counts.is_dir() else None
    if spots is None:
        if output is not None:
            return read_space_ranger_section(counts, image=image, library=library)
        samples = find_prefixed_samples(counts) if counts.is_dir() else []
        if len(samples) == 1:
            return read_prefixed_sample(samples[0], image, library)
        if counts.suffix != ".h5ad":
            raise SpotsError(
                f"{counts.name} does not say where its spots are; give a file with their positions."
            )
        return read_h5ad_section(counts, image, library, mpp)
    path = Path(spots)
    counts_file = counts if output is None else find_output_counts(output)
    read = read_spots(path, mpp, _library_of(path, library, is_spots=True))
    section_spots, notes = infer_array(read, path)
    if not section_spots.names and section_spots.array_coords is not None:
        names = names_from_array_coords(section_spots.array_coords)
        section_spots = replace(section_spots, names=names)
    stated_mpp, origin = read_stated_mpp(path, _library_of(path, library, is_spots=True))
    name = counts.name.split(".")[0]
    image_path = "" if image is None else str(image)
    metadata = SectionMetadata(name, "", image_path, stated_mpp, origin, notes)
    return build_section(
        read_counts(counts_file, _library_of(counts, library)), section_spots, metadata, path
    )


def read_stated_mpp(spots: Path, library: str | None = None) -> tuple[float | None, str]:
    """Return um per px that a file of spots states, None for none, and its origin."""
    if spots.suffix == ".h5ad":
        return find_value(
            select_library(read_h5ad_file(spots), library, spots)[0].uns, MPP_KEYS
        ), "h5ad metadata"
    if POSITIONS_NAME in spots.name:
        return read_scale_factors_beside(spots).mpp, "Space Ranger's scale factors"
    try:
        return mpp_from_selection_file(spots), "spot array"
    except SpotsError:  # too few spots to fit; the image may state its size
        return None, ""


def _library_of(path: Path, library: str | None, is_spots: bool = False) -> str | None:
    """Return the library for a file that names sections; others hold one."""
    if library is None:
        return None
    if path.suffix == ".h5ad":
        return library if list_file_libraries(path) else None
    return library if is_spots and list_table_libraries(path) else None
