"""Open a slide: detect its format from its content and choose the source."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from ..errors import SlideError
from .file_images import list_images
from .reader_errors import SourceError, translate_reader_errors
from .slide import Slide
from .slide_location import (
    convert_to_local_path,
    file_name_from_url,
    is_remote,
    is_zarr_folder,
    strip_credentials,
)
from .sources.downsampled_source import add_coarse_levels
from .sources.slide_source import SlideSource

_log = logging.getLogger(__name__)

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
JPEG_MAGIC = b"\xff\xd8\xff"
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"

# A file with one of these suffixes is a slide even if its content is damaged.
SLIDE_SUFFIXES = (
    *(".svs", ".ndpi", ".mrxs", ".tif", ".tiff"),
    *(".scn", ".bif", ".svslide", ".vms", ".vmu"),
)

SUPPORTED_FORMATS = (
    "JPEG, PNG, TIFF, OME-TIFF, SVS or another OpenSlide format, or an OME-Zarr folder"
)


ETS_MAGIC = b"SIS\0"  # of the files that hold the pixels of an Olympus VSI slide
_VSI_REASON = (
    "it is a part of an Olympus VSI slide, whose scan lies in .ets files that OpenSlide does not "
    "read; convert the .vsi with `bioformats2raw` to OME-Zarr or with `bfconvert` to OME-TIFF and "
    "open that"
)


def open_slide(
    path: str | Path,
    apply_icc: bool = False,
    *,
    image: str | int | None = None,
    whole_glass: bool = False,
) -> Slide:
    """Open a slide; only its header is read now, pixels when they are requested.

    Reads JPEG, PNG, plain, tiled and pyramidal TIFF, OME-TIFF, Aperio SVS, the other formats of
    OpenSlide, and OME-Zarr 0.4 and 0.5. The content decides about the format, not the suffix.

    Parameters
    ----------
    path
        A file, an OME-Zarr folder, or the URL of one ("https://...", "s3://...").
    apply_icc
        Convert colors to sRGB by the ICC profile of the slide. Off by default: networks were
        trained on colors as stored.
    image
        Name or number of the image, where the file has several; by default the scan, which is
        the largest and no label or macro. `Slide.images` lists them.
    whole_glass
        Positions count from the corner of the glass, where the file states the scan area
        (``openslide.bounds-*``). By default they count from the scan area, as in QuPath.

    Raises
    ------
    SlideError
        The file is missing, not a slide, empty, cut short or not an H&E image; it has no such
        image; its ICC profile is damaged; or a URL cannot be reached.
    """
    if is_remote(path):
        return _open_remote_slide(str(path), apply_icc, image)
    path = convert_to_local_path(path)
    if not os.path.exists(path):
        raise SlideError(f"There is no slide at {path}; check the name.")
    with translate_reader_errors(path):
        return _create_slide(
            path,
            _open_source(path, image, whole_glass),
            apply_icc=apply_icc,
            is_default_image=image is None,
        )


def is_slide_file(path: Path) -> bool:
    """Whether a path is a slide, by its first bytes or by a suffix that only slides have.

    The suffix counts so that a damaged slide is reported instead of ignored.
    """
    import openslide

    if path.is_dir():
        return is_zarr_folder(path)
    if path.suffix.lower() in SLIDE_SUFFIXES:
        return True
    try:
        magic = _read_magic(path)
    except OSError:
        magic = b""
    if magic.startswith((*TIFF_MAGIC, JPEG_MAGIC, PNG_MAGIC)):
        return True
    return openslide.OpenSlide.detect_format(str(path)) is not None


def _open_remote_slide(url: str, apply_icc: bool, image: str | int | None) -> Slide:
    with translate_reader_errors(file_name_from_url(url)):
        location = strip_credentials(url)
    with translate_reader_errors(file_name_from_url(location)):
        from .sources.remote_zarr_store import open_remote_ome_zarr

        return _create_slide(
            None,
            open_remote_ome_zarr(url, image),
            file_name_from_url(location),
            location,
            apply_icc,
            image is None,
        )


def _create_slide(
    path: Path | None,
    source: SlideSource,
    label: str = "",
    location: str = "",
    apply_icc: bool = False,
    is_default_image: bool = True,
) -> Slide:
    try:
        finest = source.levels[0]
        if finest.width < 1 or finest.height < 1:
            raise SourceError("its image is empty")
        slide = Slide(
            path,
            add_coarse_levels(source),
            label=label,
            location=location,
            apply_icc=apply_icc,
            is_default_image=is_default_image,
        )
        size = slide.pixel_size
        origin = "unknown" if size is None else f"{size.mpp:.4g} um ({size.origin})"
        _log.info(f"slide: {slide.label}, {slide.width} x {slide.height} px, pixel size {origin}")
        if slide.image_name:
            _log.info(f"image: {slide.image_name} of {list_images(slide.images)}")
        return slide
    except BaseException:
        source.close()
        raise


def _open_source(path: Path, image: str | int | None, whole_glass: bool) -> SlideSource:
    if path.is_dir():
        if (path / "Slidedat.ini").exists():
            raise SourceError(
                "it is the data folder of an MRXS slide; open the .mrxs file beside it"
            )
        if _has_ets_files(path):
            raise SourceError(_VSI_REASON)
        if not is_zarr_folder(path):
            raise SourceError("it is a folder but not an OME-Zarr image; open the slide file in it")
        from .sources.ome_zarr_source import OmeZarrSource

        return OmeZarrSource(path, image)

    magic = _read_magic(path)
    if not magic:
        raise SourceError("the file is empty; copy or export it again")
    # An .mrxs file starts like a JPEG: it is the thumbnail of the slide.
    if path.suffix.lower() == ".mrxs":
        return _open_with_openslide(path, image, whole_glass)
    if magic.startswith(TIFF_MAGIC):
        return _open_tiff(path, image, whole_glass)
    if magic.startswith((JPEG_MAGIC, PNG_MAGIC)):
        from .sources.jpeg_png_source import JpegPngSource

        if image not in (None, 0, "0"):
            raise SourceError(f"it has one image, and none named {image}; leave the name out")
        return JpegPngSource(path)
    if magic.startswith(ETS_MAGIC):
        raise SourceError(_VSI_REASON)
    return _open_with_openslide(path, image, whole_glass)


def _read_magic(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(16)


def _open_tiff(path: Path, image: str | int | None, whole_glass: bool) -> SlideSource:
    from .sources.tiff_source import TiffSource, is_openslide_tiff

    if is_openslide_tiff(path):
        return _open_with_openslide(path, image, whole_glass)
    # The TIFF of a VSI slide has only its label and overviews.
    if path.suffix.lower() == ".vsi" or _has_ets_files(path.parent / f"_{path.stem}_"):
        raise SourceError(_VSI_REASON)
    return TiffSource(path, image)


def _has_ets_files(folder: Path) -> bool:
    """Whether a folder is that of a VSI slide: ``_NAME_/stack1/frame_t.ets``."""
    return any(_read_magic(p).startswith(ETS_MAGIC) for p in folder.glob("stack*/*.ets"))


def _open_with_openslide(path: Path, image: str | int | None, whole_glass: bool) -> SlideSource:
    import openslide

    if openslide.OpenSlide.detect_format(str(path)) is None:
        raise SourceError(f"it is not a slide; open a {SUPPORTED_FORMATS}")
    from .sources.openslide_source import OpenSlideSource, open_associated_image

    associated = open_associated_image(path, image)
    return OpenSlideSource(path, whole_glass) if associated is None else associated
