"""Open a slide: detect its format from its content and choose the source."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import SlideError
from .reader_errors import translate_reader_errors
from .slide import Slide, is_zarr_folder
from .slide_location import convert_to_local_path, file_name_from_url, is_remote, strip_credentials
from .sources.downsampled_source import add_coarse_levels
from .sources.slide_source import SlideSource, SourceError

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
JPEG_MAGIC = b"\xff\xd8\xff"
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"

SUPPORTED_FORMATS = (
    "JPEG, PNG, TIFF, OME-TIFF, SVS or another OpenSlide format, or an OME-Zarr folder"
)


def open_slide(path: str | Path, apply_icc: bool = False) -> Slide:
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
        return _open_remote_slide(str(path), apply_icc)
    path = convert_to_local_path(path)
    if not os.path.exists(path):
        raise SlideError(f"There is no slide at {path}; check the name.")
    with translate_reader_errors(path):
        return _create_slide(path, _open_source(path), apply_icc=apply_icc)


def _open_remote_slide(url: str, apply_icc: bool) -> Slide:
    with translate_reader_errors(file_name_from_url(url)):
        location = strip_credentials(url)
    with translate_reader_errors(file_name_from_url(location)):
        from .sources.remote_zarr_store import open_remote_ome_zarr

        return _create_slide(
            None, open_remote_ome_zarr(url), file_name_from_url(location), location, apply_icc
        )


def _create_slide(
    path: Path | None,
    source: SlideSource,
    label: str = "",
    location: str = "",
    apply_icc: bool = False,
) -> Slide:
    try:
        finest = source.levels[0]
        if finest.width < 1 or finest.height < 1:
            raise SourceError("its image is empty")
        return Slide(
            path, add_coarse_levels(source), label=label, location=location, apply_icc=apply_icc
        )
    except BaseException:
        source.close()
        raise


def _open_source(path: Path) -> SlideSource:
    if path.is_dir():
        if (path / "Slidedat.ini").exists():
            raise SourceError(
                "it is the data folder of an MRXS slide; open the .mrxs file beside it"
            )
        if not is_zarr_folder(path):
            raise SourceError("it is a folder but not an OME-Zarr image; open the slide file in it")
        from .sources.ome_zarr_source import OmeZarrSource

        return OmeZarrSource(path)

    with path.open("rb") as file:
        start = file.read(16)
    if not start:
        raise SourceError("the file is empty; copy or export it again")
    # An .mrxs file starts like a JPEG: it is the slide's thumbnail.
    if path.suffix.lower() == ".mrxs":
        return _open_with_openslide(path)
    if start.startswith(TIFF_MAGIC):
        return _open_tiff(path)
    if start.startswith((JPEG_MAGIC, PNG_MAGIC)):
        from .sources.jpeg_png_source import JpegPngSource

        return JpegPngSource(path)
    return _open_with_openslide(path)


def _open_tiff(path: Path) -> SlideSource:
    from .sources.tiff_source import TiffSource, is_openslide_tiff

    if is_openslide_tiff(path):
        return _open_with_openslide(path)
    return TiffSource(path)


def _open_with_openslide(path: Path) -> SlideSource:
    import openslide

    if openslide.OpenSlide.detect_format(str(path)) is None:
        raise SourceError(f"it is not a slide; open a {SUPPORTED_FORMATS}")
    from .sources.openslide_source import OpenSlideSource

    return OpenSlideSource(path)
