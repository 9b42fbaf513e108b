"""Any h5ad with spot positions in ``obsm['spatial']``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .annotated import constant, counts_in, open_h5ad, spots_in
from .found import FoundSection
from .imagefile import same_stem
from .section import About, build_section
from .stated import MPP_KEYS, stated

if TYPE_CHECKING:
    from anndata import AnnData


def find(root: Path) -> tuple[FoundSection, ...]:
    """The h5ad itself, or those of a folder."""
    files = [root] if root.suffix == ".h5ad" else sorted(root.glob("*.h5ad"))
    return tuple(
        FoundSection(f.stem, "", "h5ad", partial(read_h5ad_section, f))
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
    data = open_h5ad(path)
    spots, notes = spots_in(data, path)
    found = str(image) if image is not None else _image(data, path)
    if not found:
        notes["image_note"] = f"no image is named in {path.name} or lies beside it"
    about = About(
        path.stem,
        stated(data.uns, ("patient",), str) or constant(data, "patient"),
        found,
        stated(data.uns, MPP_KEYS),
        "h5ad metadata",
        notes,
    )
    return build_section(counts_in(data, path), spots, about, path)


def _image(data: AnnData, path: Path) -> str:
    named = data.uns.get("image")
    if isinstance(named, str) and named and (path.parent / named).exists():
        return str(path.parent / named)
    beside = same_stem(path.parent, path.stem)
    return "" if beside is None else str(beside)
