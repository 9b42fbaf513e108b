"""Open OME-Zarr at a URL (https, http, s3) through fsspec, with retries."""

from __future__ import annotations

import asyncio
import os
import time
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from zarr.storage import FsspecStore, WrapperStore

from ..reader_errors import SourceError, is_connection_error
from .ome_zarr_source import OmeZarrSource

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype


# "memory" is fsspec's file system inside this process.
SUPPORTED_SCHEMES = ("https", "http", "s3", "memory")

# Seconds to connect, between two packets, and for one whole chunk.
CONNECT_TIMEOUT_S, READ_TIMEOUT_S, CHUNK_TIMEOUT_S = 10, 20, 120
# Pauses in seconds before a failed request is repeated. aiohttp and fsspec have no retry of
# their own, and urllib3's Retry works only for requests.
RETRY_DELAYS_S = (0.3, 1.5)
# After a request has failed for good, the others fail at once for this long.
FAIL_FAST_S = 1.0

CLOSE_TIMEOUT_S = 1.0

# Metadata files, one of which is at the root of an image.
ROOT_KEYS = ("zarr.json", ".zattrs", ".zgroup")
# Unauthorized and forbidden. A public bucket without permission to list files answers a request
# for a missing chunk like this.
AUTH_STATUS_CODES = (401, 403)


def open_remote_ome_zarr(url: str, image: str | int | None = None) -> OmeZarrSource:
    """Open the OME-Zarr image at a URL, by default the scan if there are several.

    Raises
    ------
    SourceError
        There is no OME-Zarr image, or the URL cannot be read.
    Exception
        Whatever the connection raises.
    """
    try:
        parts = urlsplit(url)
        scheme, host, query = parts.scheme.lower(), parts.netloc, parts.query
    except ValueError as error:
        raise SourceError("its address is mistyped") from error
    if scheme not in SUPPORTED_SCHEMES or "::" in url:
        raise SourceError(
            "only https://, http:// and s3:// addresses can be read; download the slide first"
        )
    if query or not host:
        raise SourceError("an address has a host and no '?'; check it, or download the slide first")
    store = RetryingZarrStore(_create_fsspec_store(url.rstrip("/"), scheme))
    try:
        return OmeZarrSource(store, image)
    except BaseException as error:
        store.close()
        if isinstance(error, FileNotFoundError):
            raise SourceError(
                "there is no OME-Zarr image at this address that can be read without a login; "
                "check it (slides of other formats must be downloaded first)"
            ) from error
        raise


def _create_fsspec_store(url: str, scheme: str) -> FsspecStore:
    # Every slide has its own connection, so closing one does not affect others.
    options: dict[str, Any] = {"skip_instance_cache": True}
    if scheme == "s3":
        login = _read_s3_options()
        if login is None:
            url, scheme = build_public_s3_url(url), "https"
        else:
            options |= login
    if scheme in ("http", "https"):
        import aiohttp

        timeout = aiohttp.ClientTimeout(
            total=CHUNK_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S, sock_read=READ_TIMEOUT_S
        )
        options["client_kwargs"] = {"timeout": timeout, "trust_env": True}  # proxies
    return FsspecStore.from_url(url, options, read_only=True)


def _read_s3_options() -> dict[str, Any] | None:
    """Return options for s3fs where fsspec is configured to log in, None for a public bucket.

    FSSPEC_S3_ANON=false means a login as the AWS tools do it. A public bucket is read without
    s3fs: a chunk is then one plain request instead of two or three.
    """
    import fsspec

    s3_config = fsspec.config.conf.get("s3", {})
    is_anonymous = s3_config.get("anon", "key" not in s3_config and "profile" not in s3_config)
    if str(is_anonymous).lower() != "false":
        return None
    client_config = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "read_timeout": READ_TIMEOUT_S,
        "retries": {"max_attempts": 1},
    }
    return {"config_kwargs": client_config, "anon": False}


def build_public_s3_url(url: str) -> str:
    """Return the https URL of an object in a public bucket.

    AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL selects another provider.
    """
    parts = urlsplit(url)
    bucket, key = parts.netloc, parts.path.lstrip("/")
    endpoint_url = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint_url:
        return f"{endpoint_url.rstrip('/')}/{bucket}/{key}"
    if "." in bucket:  # the certificate covers only names without a dot
        return f"https://s3.amazonaws.com/{bucket}/{key}"
    return f"https://{bucket}.s3.amazonaws.com/{key}"


class RetryingZarrStore(WrapperStore[FsspecStore]):
    """Repeats failed requests, and distinguishes a missing chunk from a missing image.

    A Zarr image may omit chunks, which read as blank (never scanned). To zarr, every chunk of an
    image that was removed from its server would look like that.
    """

    _root_checked_at = float("-inf")
    _fail_fast_until = float("-inf")

    def __init__(self, store: FsspecStore) -> None:
        super().__init__(store)
        self._root_check_lock = asyncio.Lock()
        # aiohttp would print a warning for a slide that was not closed.
        self._finalizer = weakref.finalize(self, _close_session, store.fs)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return the content of a key, None where it does not exist."""
        content = await self._get_with_retries(key, prototype, byte_range)
        is_chunk = key.rpartition("/")[2][:1].isdigit()  # 0.4: "0/3.5.0", 0.5: "0/c/3/5/0"
        if content is None and is_chunk:
            await self._check_root_exists(prototype)
        return content

    async def _get_with_retries(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        for pause in (*RETRY_DELAYS_S, None):
            if time.monotonic() < self._fail_fast_until:
                raise ConnectionError("the connection was lost")
            try:
                return await self._store.get(key, prototype, byte_range)
            except Exception as error:
                if (
                    isinstance(error, PermissionError)
                    or getattr(error, "status", 0) in AUTH_STATUS_CODES
                ):
                    return None
                if pause is None and is_connection_error(error):
                    self._fail_fast_until = time.monotonic() + FAIL_FAST_S
                if pause is None or not is_connection_error(error):
                    raise
            await asyncio.sleep(pause)
        return None

    async def _check_root_exists(self, prototype: BufferPrototype) -> None:
        """Raise ConnectionError if the image is gone.

        A check that started after a chunk was found missing is valid for all chunks that were
        found missing before it.
        """
        missing_at = time.monotonic()
        async with self._root_check_lock:
            if self._root_checked_at > missing_at:
                return
            check_started_at = time.monotonic()
            for root in ROOT_KEYS:
                if await self._get_with_retries(root, prototype) is not None:
                    self._root_checked_at = check_started_at
                    return
        raise ConnectionError("it is no longer at its address")

    def close(self) -> None:
        """Close the store and its connection."""
        self._store.close()
        self._finalizer()


def _close_session(filesystem: Any) -> None:
    """Close the connection, which fsspec leaves open where it is used from zarr's event loop.

    This depends on private names of fsspec, s3fs, aiohttp and zarr. Without them the connection
    stays open until it is garbage collected.
    """
    from zarr.core.sync import loop

    session = getattr(filesystem, "_session", None) or getattr(filesystem, "_s3", None)
    if session is None:
        return
    running = loop[0]
    if running is not None and running.is_running():
        closed = asyncio.run_coroutine_threadsafe(session.close(), running)
        if asyncio._get_running_loop() is not running:  # garbage collection runs in any thread
            with suppress(TimeoutError):
                closed.result(timeout=CLOSE_TIMEOUT_S)
    elif connector := getattr(session, "_connector", None):
        connector._close()  # as fsspec does when its loop has ended
