"""Any h5ad with spot positions in ``obsm['spatial']``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .annotated import constant_obs_value, counts_from_anndata, read_h5ad_file, spots_from_anndata
from .found import SectionEntry
from .imagefile import find_image_by_stem
from .section import SectionMetadata, build_section
from .stated import MPP_KEYS, find_value

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
