"""Locations of slides: local paths and URLs."""

from __future__ import annotations

import os
import re
from pathlib import Path
from stat import S_ISDIR
from urllib.parse import unquote, urlsplit, urlunsplit

from .reader_errors import SourceError, create_missing_slide_error

# Two letters or more before the colon: "C:/slides" is a path.
URL_PATTERN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")

# Every zarr folder has one of these files at its root.
ZARR_ROOT_FILES = ("zarr.json", ".zattrs", ".zgroup", ".zarray")


def is_remote(location: str | os.PathLike[str]) -> bool:
    """Whether a location is a URL ("https://...", "s3://...") and not a local file."""
    if not isinstance(location, str) or URL_PATTERN.match(location) is None:
        return False
    return not location.lower().startswith("file:")


def convert_to_local_path(location: str | os.PathLike[str]) -> Path:
    """Convert a path, a text or a file:// URL to a path."""
    text = os.fspath(location)
    if text.lower().startswith("file://"):
        from urllib.request import url2pathname

        parts = urlsplit(text)
        host = "" if parts.netloc.lower() in ("", "localhost") else f"//{parts.netloc}"
        text = host + url2pathname(parts.path)
    try:
        return Path(text).expanduser()
    except RuntimeError:  # no such user, or no home folder
        return Path(text)


def strip_credentials(url: str) -> str:
    """Remove user name and password from a URL, so that it can be shown and stored.

    Raises SourceError for a malformed URL.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise SourceError("its address is mistyped") from error
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def file_name_from_url(url: str) -> str:
    """Return the last part of a URL, decoded."""
    return unquote(url.rstrip("/").rpartition("/")[2]) or url


def slide_stem(file_name: str) -> str:
    """Return a file name without its suffix, and without ".ome" before that."""
    return file_name.removesuffix(Path(file_name).suffix).removesuffix(".ome")


def is_zarr_folder(folder: Path) -> bool:
    """Whether a folder is the root of a zarr hierarchy."""
    return any((folder / name).exists() for name in ZARR_ROOT_FILES)


def file_stamp(path: Path) -> tuple[int, int] | None:
    """Return size and modification time of a file, None for a zarr folder.

    Raises SlideError when it does not exist any more.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        raise create_missing_slide_error(path) from error
    if not S_ISDIR(status.st_mode):
        return status.st_size, status.st_mtime_ns
    if is_zarr_folder(path):
        return None
    raise create_missing_slide_error(path)
