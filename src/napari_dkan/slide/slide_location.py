"""Locations of slides: local paths and URLs."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from .sources.slide_source import SourceError

# "C:/slides" has one letter before its colon.
URL_PATTERN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")

# What a drive on the network says when it has gone (Windows knows fewer of them).
CONNECTION_ERRNO_NAMES = (
    "EIO ESTALE ETIMEDOUT EHOSTDOWN EHOSTUNREACH ENETDOWN ENETUNREACH ENOTCONN EREMOTEIO ENODEV"
)
CONNECTION_ERRNOS = {
    getattr(errno, name) for name in CONNECTION_ERRNO_NAMES.split() if hasattr(errno, name)
}


def is_remote(location: str | os.PathLike[str]) -> bool:
    """Whether this is an address, "https://..." or "s3://...", and no file of this machine."""
    if not isinstance(location, str) or URL_PATTERN.match(location) is None:
        return False
    return not location.lower().startswith("file:")


def convert_to_local_path(location: str | os.PathLike[str]) -> Path:
    """The path that a path, a text or a file:// address means."""
    text = os.fspath(location)
    if text.lower().startswith("file://"):
        from urllib.request import url2pathname

        parts = urlsplit(text)
        host = "" if parts.netloc.lower() in ("", "localhost") else f"//{parts.netloc}"
        text = host + url2pathname(parts.path)
    try:
        return Path(text).expanduser()
    except RuntimeError:  # no such user, or no home
        return Path(text)


def strip_credentials(url: str) -> str:
    """The address as it may be shown and stored: a name and password in it are left out.

    Unreadable for what is no address.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise SourceError("its address is mistyped") from error
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def file_name_from_url(url: str) -> str:
    """The last part of an address, as a file's name."""
    return unquote(url.rstrip("/").rpartition("/")[2]) or url


def is_connection_error(error: BaseException) -> bool:
    """Whether it is the connection or the drive, not the slide, that failed."""
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    # By name: they are not there unless something was read through them.
    library = type(error).__module__.partition(".")[0]
    if library in ("aiohttp", "botocore", "aiobotocore"):
        return not isinstance(error, ValueError)  # a mistyped address
    return isinstance(error, OSError) and error.errno in CONNECTION_ERRNOS
