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

from ..slide_location import is_connection_error
from .ome_zarr_source import OmeZarrSource
from .slide_source import SourceError

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype


# "memory" is fsspec's own, for what is kept in this process.
SUPPORTED_SCHEMES = ("https", "http", "s3", "memory")

# Seconds to reach the other side, between two packets, and for one chunk in all.
CONNECT_TIMEOUT_S, READ_TIMEOUT_S, CHUNK_TIMEOUT_S = 10, 20, 120
# A chunk that did not come is asked for again after these many seconds.
RETRY_DELAYS_S = (0.3, 1.5)
# When one part was given up, so are those that were asked for with it.
FAIL_FAST_S = 1.0

CLOSE_TIMEOUT_S = 1.0

# What describes the image, and one of which lies at its root.
ROOT_KEYS = ("zarr.json", ".zattrs", ".zgroup")
# Answers to who has no login. A public bucket that may not be listed gives them for every part
# that does not exist.
AUTH_STATUS_CODES = (401, 403)


def open_remote_ome_zarr(url: str) -> OmeZarrSource:
    """Unreadable where there is no OME-Zarr image; whatever the connection raises."""
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
        return OmeZarrSource(store)
    except BaseException as error:
        store.close()
        if isinstance(error, FileNotFoundError):
            raise SourceError(
                "there is no OME-Zarr image at this address that can be read without a login; "
                "check it (slides of other formats must be downloaded first)"
            ) from error
        raise


def _create_fsspec_store(url: str, scheme: str) -> FsspecStore:
    # A connection of its own: closing this slide closes no other.
    options: dict[str, Any] = {"skip_instance_cache": True}
    if scheme == "s3":
        login = _read_s3_options()
        if login is None:
            url, scheme = build_public_s3_url(url), "https"
        else:
            options |= login
    if scheme in ("http", "https"):
        import aiohttp

        wait = aiohttp.ClientTimeout(
            total=CHUNK_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S, sock_read=READ_TIMEOUT_S
        )
        options["client_kwargs"] = {"timeout": wait, "trust_env": True}  # proxies
    return FsspecStore.from_url(url, options, read_only=True)


def _read_s3_options() -> dict[str, Any] | None:
    """What s3fs is to be given where the person has said in fsspec's own settings how to log in
    (FSSPEC_S3_ANON=false: as the AWS tools do); None for a public bucket, which needs no s3fs:
    there a part is one plain request, not the two or three that s3fs makes of it."""
    import fsspec

    said = fsspec.config.conf.get("s3", {})
    if str(said.get("anon", "key" not in said and "profile" not in said)).lower() != "false":
        return None
    waits = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "read_timeout": READ_TIMEOUT_S,
        "retries": {"max_attempts": 1},
    }
    return {"config_kwargs": waits, "anon": False}


def build_public_s3_url(url: str) -> str:
    """Where a public bucket is read over https; AWS_ENDPOINT_URL names another provider."""
    parts = urlsplit(url)
    bucket, key = parts.netloc, parts.path.lstrip("/")
    own = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if own:
        return f"{own.rstrip('/')}/{bucket}/{key}"
    if "." in bucket:  # The certificate covers names without a dot.
        return f"https://s3.amazonaws.com/{bucket}/{key}"
    return f"https://{bucket}.s3.amazonaws.com/{key}"


class RetryingZarrStore(WrapperStore[FsspecStore]):
    """Asks again before it gives up, and never takes a slide that is gone for an empty one.

    A chunk that does not exist is a legal part of a Zarr image: it was never scanned. So would
    be, to zarr, every chunk of an image that was taken down.
    """

    _root_checked_at = float("-inf")
    _fail_fast_until = float("-inf")

    def __init__(self, store: FsspecStore) -> None:
        super().__init__(store)
        self._root_check_lock = asyncio.Lock()
        # Whoever forgets to close a slide finds no complaint of aiohttp on the screen.
        self._finalizer = weakref.finalize(self, _close_session, store.fs)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        found = await self._get_with_retries(key, prototype, byte_range)
        is_chunk = key.rpartition("/")[2][:1].isdigit()  # 0.4: "0/3.5.0", 0.5: "0/c/3/5/0"
        if found is None and is_chunk:
            await self._check_root_exists(prototype)
        return found

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
        """One look, begun after a part was missing, answers for all that were missing by then."""
        missing_at = time.monotonic()
        async with self._root_check_lock:
            if self._root_checked_at > missing_at:
                return
            looked_at = time.monotonic()
            for root in ROOT_KEYS:
                if await self._get_with_retries(root, prototype) is not None:
                    self._root_checked_at = looked_at
                    return
        raise ConnectionError("it is no longer at its address")

    def close(self) -> None:
        self._store.close()
        self._finalizer()


def _close_session(filesystem: Any) -> None:
    """Close the connection, which fsspec leaves open where it is used from zarr's loop."""
    from zarr.core.sync import loop

    session = getattr(filesystem, "_session", None) or getattr(filesystem, "_s3", None)
    if session is None:
        return
    running = loop[0]
    if running is not None and running.is_running():
        closed = asyncio.run_coroutine_threadsafe(session.close(), running)
        if asyncio._get_running_loop() is not running:  # the collector runs in any thread
            with suppress(TimeoutError):
                closed.result(timeout=CLOSE_TIMEOUT_S)
    elif connector := getattr(session, "_connector", None):
        connector._close()  # as fsspec does when its loop has ended
