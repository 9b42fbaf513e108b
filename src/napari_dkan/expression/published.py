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
from .found import FoundSection
from .her2st import patient_of, selection_mpp, st_root
from .imagefile import images_in, stem
from .section import About, build_section
from .spotfile import rounded, spot_ids
from .tables import numbers, read_table

if TYPE_CHECKING:
    from anndata import AnnData

_ENDINGS = ("_sub.parquet", ".parquet")
OWN, NEIGHBOURS = "gt_features_224", "n_features_5_224"


def find(root: Path) -> tuple[FoundSection, ...]:
    """The sections with Parquet counts in ``ST-cnts``."""
    files = (st_root(root) / "ST-cnts").glob("*.parquet")
    names = sorted({p.name.removesuffix(".parquet").removesuffix("_sub") for p in files})
    return tuple(
        FoundSection(name, patient_of(name), "DKAN", partial(read_published, root, name))
        for name in names
        if not name.startswith(".")
    )


def read_published(root: str | Path, section: str) -> AnnData:
    """A section; see `section.build_section` for what it holds.

    Spots stand in the published order (by y, then x), because row i of the feature files is the
    i-th spot of that order. ``uns['features']`` and ``uns['neighbor_features']`` are the paths
    of those files, "" where there is none. The array is taken for the 200 um one.

    Raises SpotsError naming the file that is missing or not as expected.
    """
    root = st_root(root)
    counts = next(
        (p for end in _ENDINGS if (p := root / "ST-cnts" / f"{section}{end}").is_file()), None
    )
    if counts is None:
        raise SpotsError(f"{root} has no ST-cnts/{section}_sub.parquet; copy it there.")
    path = root / "ST-spotfiles" / f"{section}_selection.tsv"
    spots = _spots(path)
    image = _image(root, section)
    notes = {
        "features": _existing(root / OWN / f"{section}.pt"),
        "neighbor_features": _existing(root / NEIGHBOURS / f"{section}.pt"),
    }
    if not image:
        notes["image_note"] = f"ST-imgs has no image of {section}"
    about = About(section, patient_of(section), image, _mpp(path), "spot array", notes)
    return build_section(read_counts(counts), spots, about, path)


def published_panel(root: str | Path) -> Path | None:
    """The dataset's ``genes_*.npy``, None when there is none.

    Raises SpotsError when there are several.
    """
    return _only(st_root(root), "genes_*.npy")


def published_text(root: str | Path) -> Path | None:
    """The dataset's gene text features, ``ST-text/*.pt``, None when there are none.

    Raises SpotsError when there are several.
    """
    return _only(st_root(root) / "ST-text", "*.pt")


def _spots(path: Path) -> Spots:
    """All spots of the file, selected or not, as the published code takes them."""
    table = read_table(path)
    needed = ["x", "y", "pixel_x", "pixel_y"]
    if not set(needed) <= set(table.columns):
        raise SpotsError(f"{path} is not a spot file of this layout; it needs {', '.join(needed)}.")
    values = numbers(table, needed, path)
    values = values[np.lexsort((values[:, 0], values[:, 1]))]
    array = rounded(values[:, :2])
    return Spots(values[:, 2:], array, spot_ids(array), ST_DIAMETER_UM, ST_PITCH_UM)


def _mpp(path: Path) -> float | None:
    try:
        return selection_mpp(path)
    except SpotsError:  # too few spots to fit; the image may state its size
        return None


def _image(root: Path, section: str) -> str:
    images = images_in(root / "ST-imgs" / section[:1] / section)
    images = images or [p for p in images_in(root / "ST-imgs") if stem(p).endswith(section)]
    if len(images) > 1:
        names = ", ".join(p.name for p in images[:3])
        raise SpotsError(f"{root / 'ST-imgs'} holds several images of {section} ({names}).")
    return str(images[0]) if images else ""


def _existing(path: Path) -> str:
    return str(path) if path.is_file() else ""


def _only(folder: Path, pattern: str) -> Path | None:
    files = sorted(folder.glob(pattern))
    if len(files) > 1:
        names = ", ".join(p.name for p in files[:3])
        raise SpotsError(f"{folder} holds several {pattern} ({names}); keep the one to use.")
    return files[0] if files else None
