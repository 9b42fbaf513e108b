"""The layout published with DKAN (and TRIPLEX): counts in Parquet, encoder features beside them.

Names as in the published code: ``ST-cnts/ID_sub.parquet``, ``ST-spotfiles/ID_selection.tsv``,
``ST-imgs`` (her2st's folders, or ``*ID.tif|jpg``), ``gt_features_224/ID.pt`` (N, 1024),
``n_features_5_224/ID.pt`` (N, 25, 1024), ``ST-text/DATASET_ncbi_biobert.pt``,
``genes_DATASET.npy``.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import SpotsError
from ..spatial.spots import Spots
from .arrayfit import ST_DIAMETER_UM, ST_PITCH_UM
from .countfile import read_counts
from .found import SectionEntry
from .her2st import patient_from_section_name, mpp_from_selection_file, find_her2st_root
from .imagefile import list_images, image_stem
from .section import SectionMetadata, build_section
from .spotfile import round_array_coords, names_from_array_coords
from .tables import numeric_columns, read_table

if TYPE_CHECKING:
    from anndata import AnnData

_PARQUET_SUFFIXES = ("_sub.parquet", ".parquet")
TILE_FEATURES_FOLDER, NEIGHBOR_FEATURES_FOLDER = "gt_features_224", "n_features_5_224"


def find_dkan_sections(root: Path) -> tuple[SectionEntry, ...]:
    """The sections with Parquet counts in ``ST-cnts``."""
    files = (find_her2st_root(root) / "ST-cnts").glob("*.parquet")
    names = sorted({p.name.removesuffix(".parquet").removesuffix("_sub") for p in files})
    return tuple(
        SectionEntry(name, patient_from_section_name(name), "DKAN", partial(read_dkan_section, root, name))
        for name in names
        if not name.startswith(".")
    )


def read_dkan_section(root: str | Path, section: str) -> AnnData:
    """A section; see `section.build_section` for what it holds.

    Spots stand in the published order (by y, then x), because row i of the feature files is the
    i-th spot of that order. ``uns['features']`` and ``uns['neighbor_features']`` are the paths
    of those files, "" where there is none. The array is taken for the 200 um one.

    Raises SpotsError naming the file that is missing or not as expected.
    """
    root = find_her2st_root(root)
    counts = next(
        (p for end in _PARQUET_SUFFIXES if (p := root / "ST-cnts" / f"{section}{end}").is_file()), None
    )
    if counts is None:
        raise SpotsError(f"{root} has no ST-cnts/{section}_sub.parquet; copy it there.")
    path = root / "ST-spotfiles" / f"{section}_selection.tsv"
    spots = _read_all_spots(path)
    image = _find_dkan_image(root, section)
    notes = {
        "features": _path_if_exists(root / TILE_FEATURES_FOLDER / f"{section}.pt"),
        "neighbor_features": _path_if_exists(root / NEIGHBOR_FEATURES_FOLDER / f"{section}.pt"),
    }
    if not image:
        notes["image_note"] = f"ST-imgs has no image of {section}"
    about = SectionMetadata(section, patient_from_section_name(section), image, _fit_mpp_or_none(path), "spot array", notes)
    return build_section(read_counts(counts), spots, about, path)


def find_dkan_panel(root: str | Path) -> Path | None:
    """The dataset's ``genes_*.npy``, None when there is none.

    Raises SpotsError when there are several.
    """
    return _find_single_file(find_her2st_root(root), "genes_*.npy")


def find_dkan_gene_text(root: str | Path) -> Path | None:
    """The dataset's gene text features, ``ST-text/*.pt``, None when there are none.

    Raises SpotsError when there are several.
    """
    return _find_single_file(find_her2st_root(root) / "ST-text", "*.pt")


def _read_all_spots(path: Path) -> Spots:
    """All spots of the file, selected or not, as the published code takes them."""
    table = read_table(path)
    needed = ["x", "y", "pixel_x", "pixel_y"]
    if not set(needed) <= set(table.columns):
        raise SpotsError(f"{path} is not a spot file of this layout; it needs {', '.join(needed)}.")
    values = numeric_columns(table, needed, path)
    values = values[np.lexsort((values[:, 0], values[:, 1]))]
    array = round_array_coords(values[:, :2])
    return Spots(values[:, 2:], array, names_from_array_coords(array), ST_DIAMETER_UM, ST_PITCH_UM)


def _fit_mpp_or_none(path: Path) -> float | None:
    try:
        return mpp_from_selection_file(path)
    except SpotsError:  # too few spots to fit; the image may state its size
        return None


def _find_dkan_image(root: Path, section: str) -> str:
    images = list_images(root / "ST-imgs" / section[:1] / section)
    images = images or [p for p in list_images(root / "ST-imgs") if image_stem(p).endswith(section)]
    if len(images) > 1:
        names = ", ".join(p.name for p in images[:3])
        raise SpotsError(f"{root / 'ST-imgs'} holds several images of {section} ({names}).")
    return str(images[0]) if images else ""


def _path_if_exists(path: Path) -> str:
    return str(path) if path.is_file() else ""


def _find_single_file(folder: Path, pattern: str) -> Path | None:
    files = sorted(folder.glob(pattern))
    if len(files) > 1:
        names = ", ".join(p.name for p in files[:3])
        raise SpotsError(f"{folder} holds several {pattern} ({names}); keep the one to use.")
    return files[0] if files else None
