"""Which reader opens which file."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import SlideError
from .address import is_remote, label_of, local_path, without_login
from .plainly import plainly
from .reduced import with_overview
from .slide import Slide, is_zarr
from .source import Source, Unreadable

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
JPEG_START = b"\xff\xd8\xff"
PNG_START = b"\x89PNG\r\n\x1a\n"

KNOWN = "JPEG, PNG, TIFF, OME-TIFF, SVS or another OpenSlide format, or an OME-Zarr folder"


def open_slide(path: str | Path, icc: bool = False) -> Slide:
    """Open any slide; only its header is read here, pixels when they are asked for.

    Reads JPEG, PNG, plain, tiled and pyramidal TIFF, OME-TIFF, Aperio SVS, the other formats of
    OpenSlide, and OME-Zarr 0.4 and 0.5, as a folder or at an address ("https://...",
    "s3://..."). The content decides, not the extension.
    icc : turn its colours into sRGB by the ICC profile that it brings. Off as a rule: networks
        were trained on colours as they are stored.
    SlideError with one sentence when the file is missing, no slide, empty, cut short or of a
    kind that is no H&E image, when its profile is damaged, or an address cannot be reached.
    """
    if is_remote(path):
        return _open_remote(str(path), icc)
    path = local_path(path)
    if not os.path.exists(path):
        raise SlideError(f"There is no slide at {path}; check the name.")
    with plainly(path):
        return _slide(path, _source(path), icc=icc)


def _open_remote(url: str, icc: bool) -> Slide:
    with plainly(label_of(url)):
        location = without_login(url)
    with plainly(label_of(location)):
        from .remote import open_remote

        return _slide(None, open_remote(url), label_of(location), location, icc)


def _slide(
    path: Path | None, source: Source, label: str = "", location: str = "", icc: bool = False
) -> Slide:
    try:
        finest = source.levels[0]
        if finest.width < 1 or finest.height < 1:
            raise Unreadable("its image is empty")
        return Slide(path, with_overview(source), label=label, location=location, icc=icc)
    except BaseException:
        source.close()
        raise


def _source(path: Path) -> Source:
    if path.is_dir():
        if (path / "Slidedat.ini").exists():
            raise Unreadable(
                "it is the data folder of an MRXS slide; open the .mrxs file beside it"
            )
        if not is_zarr(path):
            raise Unreadable("it is a folder but not an OME-Zarr image; open the slide file in it")
        from .ome_zarr import OmeZarrSource

        return OmeZarrSource(path)

    with path.open("rb") as file:
        start = file.read(16)
    if not start:
        raise Unreadable("the file is empty; copy or export it again")
    # An .mrxs file starts like a JPEG: it is the slide's thumbnail.
    if path.suffix.lower() == ".mrxs":
        return _openslide(path)
    if start.startswith(TIFF_STARTS):
        return _tiff(path)
    if start.startswith((JPEG_START, PNG_START)):
        from .flat import FlatSource

        return FlatSource(path)
    return _openslide(path)


def _tiff(path: Path) -> Source:
    from .tiff import TiffSource, belongs_to_openslide

    if belongs_to_openslide(path):
        return _openslide(path)
    return TiffSource(path)


def _openslide(path: Path) -> Source:
    import openslide

    if openslide.OpenSlide.detect_format(str(path)) is None:
        raise Unreadable(f"it is not a slide; open a {KNOWN}")
    from .open_slide_source import OpenSlideSource

    return OpenSlideSource(path)
