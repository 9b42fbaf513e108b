"""Read sections from h5ad files: single files, and HEST-1k (Jaume et al. 2024).

HEST-1k: ``st/ID.h5ad``, ``wsis/ID.tif``, ``metadata/ID.json``. Other h5ad files need spot
positions in ``obsm['spatial']``.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..anndata_io import (
    constant_obs_value,
    counts_from_anndata,
    is_prediction_file,
    read_h5ad_file,
    spots_from_anndata,
)
from ..image_files import find_image_by_stem
from ..library_choice import list_file_libraries, select_library
from ..metadata import MPP_KEYS, entered_origin, find_value, read_json_object, to_positive_float
from ..section_anndata import SectionEntry, SectionMetadata, build_section

if TYPE_CHECKING:
    from anndata import AnnData


def find_h5ad_sections(root: Path) -> tuple[SectionEntry, ...]:
    """Find the sections of an h5ad file, or of those of a folder; a file may hold several."""
    files = [root] if root.suffix == ".h5ad" else sorted(root.glob("*.h5ad"))
    entries = []
    for file in files:
        if not file.is_file() or file.name.startswith(".") or is_prediction_file(file):
            continue
        libraries = list_file_libraries(file)
        for library in libraries if len(libraries) > 1 else (None,):
            name = file.stem if library is None else f"{file.stem} {library}"
            read = partial(read_h5ad_section, file, library=library)
            entries.append(SectionEntry(name, "", "h5ad", read))
    return tuple(entries)


def read_h5ad_section(
    path: str | Path,
    image: str | Path | None = None,
    library: str | None = None,
    mpp: float | None = None,
) -> AnnData:
    """Read a section from an h5ad file; see `build_section` for the result.

    Counts come from ``layers['counts']``, else from the first of ``raw`` and ``X`` with whole
    numbers. The image is `image`, the file in ``uns['image']``, or one with the same stem in the
    folder of the h5ad. Pixel size, pitch, diameter and patient are searched in ``uns``, nested
    mappings included. Missing array coordinates are derived from positions on a lattice.

    Parameters
    ----------
    library
        Name of the section, where the file holds several: a key of ``uns['spatial']``, or a value
        of ``library_id``, ``sample`` or ``batch`` in ``obs``. Its image is named after it.
    mpp
        um per px of the image, for positions in micrometres; default that of the file.

    Raises
    ------
    SpotsError
        There are no positions or no raw counts, or several sections and none is named.
    """
    path = Path(path)
    data, library = select_library(read_h5ad_file(path), library, path)
    spots, notes = spots_from_anndata(data, path, mpp)
    image_path = str(image) if image is not None else _find_h5ad_image(data, path, library)
    if not image_path:
        notes["image_note"] = f"no image is named in {path.name} or lies beside it"
        if library:
            notes["image_note"] = f"no image beside {path.name} is called {library}"
    metadata = SectionMetadata(
        f"{path.stem} {library}" if library else path.stem,
        find_value(data.uns, ("patient",), str) or constant_obs_value(data, "patient"),
        image_path,
        find_value(data.uns, MPP_KEYS),
        entered_origin(data.uns) or "h5ad metadata",
        notes,
    )
    return build_section(counts_from_anndata(data, path), spots, metadata, path)


def _find_h5ad_image(data: AnnData, path: Path, library: str) -> str:
    file_name = data.uns.get("image")
    if isinstance(file_name, str) and file_name and (path.parent / file_name).exists():
        return str(path.parent / file_name)
    # an image called like the file could be that of any of its sections
    names = (
        (f"{path.stem} {library}", f"{path.stem}_{library}", library) if library else (path.stem,)
    )
    images = (find_image_by_stem(path.parent, name) for name in names)
    return next((str(image) for image in images if image is not None), "")


def find_hest_sections(root: Path) -> tuple[SectionEntry, ...]:
    """Find the samples of a HEST folder, in the order of their ids."""
    return tuple(
        SectionEntry(f.stem, "", "HEST-1k", partial(read_hest_section, root, f.stem))
        for f in sorted((root / "st").glob("*.h5ad"))
        if not is_prediction_in_hest(f)
    )


def is_prediction_in_hest(path: Path) -> bool:
    """Whether a file of ``st`` is a prediction; those that HEST describes are not opened."""
    metadata = path.parent.parent / "metadata" / f"{path.stem}.json"
    return not metadata.is_file() and is_prediction_file(path)


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
    data, _ = select_library(read_h5ad_file(path), None, path)
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
