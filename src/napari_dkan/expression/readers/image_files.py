"""Find the full-resolution image that belongs to a section."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ...errors import SpotsError

# Best first: of several files with one stem, a pyramid opens faster than a JPEG.
_IMAGE_SUFFIXES = [".ome.tif", ".ome.tiff", ".tif", ".tiff", ".btf", ".svs", ".ndpi", ".mrxs"]
_IMAGE_SUFFIXES += [".scn", ".bif", ".vsi", ".jpg", ".jpeg", ".png"]
# Images that pipelines write in a resolution to which no spot position refers. Names of the full
# resolution end like some of them: ``CytAssist_..._tissue_image.tif``, ``tissue_image.btf``.
_LOW_RESOLUTION_PREFIXES = (
    "tissue_",
    "detected_tissue",
    "aligned_",
    "cytassist",
    "downscaled",
    "thumbnail",
)
_LOW_RESOLUTION_STEM = re.compile(
    r"(?:^|.*[-_. ])(?:tissue_(?:hires|lowres)_image|detected_tissue_image|aligned_tissue_image"
    r"|aligned_fiducials|cytassist_image)"
)
_FULL_RESOLUTION_STEM = re.compile(r"(?:.*[-_. ])?tissue(?:_fullres)?_image")


def image_stem(path: Path) -> str:
    """Return a file name without its image suffix: ``C3`` of ``C3.ome.tif``."""
    name = path.name
    suffix = next((s for s in _IMAGE_SUFFIXES if name.lower().endswith(s)), path.suffix)
    return name[: len(name) - len(suffix)] if suffix else name


def list_images(folder: Path) -> list[Path]:
    """List the full-resolution images of a folder, sorted by name, one per stem."""
    best: dict[str, tuple[int, Path]] = {}
    for rank, path in _all_images(folder):
        if _is_low_resolution(path):
            continue
        if image_stem(path) not in best or rank < best[image_stem(path)][0]:
            best[image_stem(path)] = (rank, path)
    return [path for _, path in best.values()]


def list_low_resolution_images(folder: Path) -> list[Path]:
    """List the images of a folder that are not taken, as spot positions do not refer to them."""
    return [path for _, path in _all_images(folder) if _is_low_resolution(path)]


def _all_images(folder: Path) -> Iterator[tuple[int, Path]]:
    """Yield the rank of the format and the path of each image of a folder, sorted by name."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        name = path.name.lower()
        rank = next((i for i, e in enumerate(_IMAGE_SUFFIXES) if name.endswith(e)), None)
        if rank is not None and not name.startswith(".") and path.is_file():
            yield rank, path


def _is_low_resolution(path: Path) -> bool:
    stem = image_stem(path).lower()
    if _LOW_RESOLUTION_STEM.fullmatch(stem):
        return True
    return stem.startswith(_LOW_RESOLUTION_PREFIXES) and not _FULL_RESOLUTION_STEM.fullmatch(stem)


def find_image_by_stem(folder: Path, name: str) -> Path | None:
    """Find the image of a folder with the stem `name`."""
    return next((p for p in list_images(folder) if image_stem(p) == name), None)


def is_image_of_section(path: Path, name: str) -> bool:
    """Whether an image is named after a section: ``A1.tif`` and ``A1_he.tif``, not ``A10.tif``."""
    rest = path.name.removeprefix(name)
    return len(rest) < len(path.name) and rest[:1] in (".", "_", "-", " ")


def find_only_image(folder: Path, name: str) -> Path | None:
    """Find the image of a folder; of several, the only one named after the section.

    Raises SpotsError if several images are possible.
    """
    images = list_images(folder)
    if len(images) > 1:
        images = [p for p in images if is_image_of_section(p, name)] or images
    if len(images) > 1:
        names = ", ".join(p.name for p in images[:3])
        raise SpotsError(
            f"{folder} holds {len(images)} images ({names}) and one slide is expected; "
            f"call it {name}{images[0].suffix} or move the others away."
        )
    return images[0] if images else None
