"""Request JSON over HTTP with a rate limit, retries and no redirects; cache responses on disk."""

from __future__ import annotations

import hashlib
import http.client
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from ...atomic_write import atomic_write
from ...errors import GeneError


@dataclass(frozen=True)
class ResponseCache:
    """JSON values in a folder, each under the hash of its key; delete the folder to clear it."""

    folder: Path

    def get(self, *key: str) -> Any:
        """Return the value of a key, None if it is missing or its file is damaged."""
        try:
            return json.loads(self._path(key).read_bytes())["answer"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def put(self, response: Any, *key: str) -> None:
        """Store a value. Raises OutputError if the folder cannot be written."""
        with atomic_write(self._path(key)) as temporary:
            temporary.write_text(json.dumps({"answer": response}), encoding="utf-8")

    def _path(self, key: tuple[str, ...]) -> Path:
        return self.folder / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()}.json"


def gene_cache_folder() -> Path:
    """Return the folder of cached responses."""
    import platformdirs

    return platformdirs.user_cache_path("napari-dkan") / "genes"


MAX_RESPONSE_BYTES = 32 * 2**20
_TRANSIENT_STATUSES = {408, 425, 429, 500, 502, 503, 504}  # a retry may succeed
_MAX_PAUSE_S = 60.0


class JsonRequestError(Exception):
    """There is no usable response; `status` is the HTTP status, 0 if the host was not reached."""

    def __init__(self, reason: str, status: int = 0) -> None:
        super().__init__(reason)
        self.status = status


class JsonClient:
    """Client of one host that limits its request rate and repeats requests that failed.

    Parameters
    ----------
    requests_per_second
        Maximum rate.
    max_attempts
        For requests whose failure may be temporary.
    timeout_s
        Of one request.
    sleep, clock
        Replaceable in tests.
    """

    def __init__(
        self,
        requests_per_second: float = 3.0,
        max_attempts: int = 4,
        timeout_s: float = 30.0,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._min_interval_s = 1.0 / requests_per_second
        self._max_attempts = max_attempts
        self._timeout = timeout_s
        self._sleep = sleep
        self._clock = clock
        self._next_request_at = clock()
        # A redirect could send an access key to another host.
        self._opener = build_opener(_NoRedirect)

    def request_json(
        self, url: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Any:
        """Return the JSON response to a GET, or to a POST of a JSON body.

        Raises JsonRequestError.
        """
        data = None if body is None else json.dumps(body).encode()
        all_headers = {"Accept": "application/json", "User-Agent": "napari-dkan", **(headers or {})}
        if data is not None:
            all_headers["Content-Type"] = "application/json"
        for attempt in range(1, self._max_attempts + 1):
            try:
                return _parse_json(self._send(Request(url, data, all_headers)))
            except HTTPError as error:
                error.close()
                failure = JsonRequestError(f"it answered {error.code} {error.reason}", error.code)
                if error.code not in _TRANSIENT_STATUSES:
                    raise failure from None
                wait = _parse_retry_after(error.headers.get("Retry-After"))
            except (URLError, OSError, http.client.HTTPException) as error:
                failure = JsonRequestError(_describe_error(error))
                wait = 0.0
            if attempt == self._max_attempts:
                raise failure from None
            self._sleep(min(max(wait, 2.0 ** (attempt - 1)), _MAX_PAUSE_S))
        raise AssertionError("max_attempts is at least 1")

    def _send(self, request: Request) -> bytes:
        wait = self._next_request_at - self._clock()
        if wait > 0:
            self._sleep(wait)
        self._next_request_at = max(self._next_request_at, self._clock()) + self._min_interval_s
        with self._opener.open(request, timeout=self._timeout) as response:
            content: bytes = response.read(MAX_RESPONSE_BYTES + 1)
        if len(content) > MAX_RESPONSE_BYTES:
            raise JsonRequestError("its answer is larger than any that was expected", 200)
        return content


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def validate_url(url: str, option: str) -> str:
    """Return a URL without a trailing slash. Raises GeneError if it is not an http(s) URL."""
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_valid = False
    if not is_valid or any(c.isspace() for c in url):
        raise GeneError(f"{option} {url:.80} is not an address; give one such as https://host/v1.")
    return url.rstrip("/")


def _parse_json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise JsonRequestError("its answer is not JSON", 200) from None


def _parse_retry_after(header: str | None) -> float:
    return float(header) if header and header.isascii() and header.isdigit() else 0.0


def _describe_error(error: Exception) -> str:
    """Describe an error in a few words; the reason of a URLError is an exception itself."""
    cause = getattr(error, "reason", error)
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return str(cause)[:100] or type(cause).__name__
