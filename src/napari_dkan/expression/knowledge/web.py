"""JSON over HTTP: a rate limit, retries with growing pauses, and no redirects."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from ...errors import GeneError

MAX_ANSWER = 32 * 2**20
_PASSING = {408, 425, 429, 500, 502, 503, 504}  # states that may be gone a moment later
_LONGEST_PAUSE_S = 60.0


class WebError(Exception):
    """No usable answer. status : the HTTP status, 0 when the host was not reached."""

    def __init__(self, reason: str, status: int = 0) -> None:
        super().__init__(reason)
        self.status = status


class Web:
    """A polite client of one host.

    per_second : requests started a second at most. tries : attempts at a request that fails in
    a way that may pass. pause, clock : for tests.
    """

    def __init__(
        self,
        per_second: float = 3.0,
        tries: int = 4,
        timeout_s: float = 30.0,
        pause: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gap = 1.0 / per_second
        self._tries = tries
        self._timeout = timeout_s
        self._pause = pause
        self._clock = clock
        self._next = clock()
        # A redirect would pass an access key on to a host that nobody named.
        self._opener = build_opener(_NoRedirect)

    def json(self, url: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        """The JSON answer to a GET, or to a POST of a JSON body. Raises WebError."""
        data = None if body is None else json.dumps(body).encode()
        sent = {"Accept": "application/json", "User-Agent": "napari-dkan", **(headers or {})}
        if data is not None:
            sent["Content-Type"] = "application/json"
        for attempt in range(1, self._tries + 1):
            try:
                return _parsed(self._once(Request(url, data, sent)))
            except HTTPError as error:
                error.close()
                failure = WebError(f"it answered {error.code} {error.reason}", error.code)
                if error.code not in _PASSING:
                    raise failure from None
                wait = _asked_pause(error.headers.get("Retry-After"))
            except (URLError, OSError, http.client.HTTPException) as error:
                failure = WebError(_reason(error))
                wait = 0.0
            if attempt == self._tries:
                raise failure from None
            self._pause(min(max(wait, 2.0 ** (attempt - 1)), _LONGEST_PAUSE_S))
        raise AssertionError("tries is at least 1")

    def _once(self, request: Request) -> bytes:
        wait = self._next - self._clock()
        if wait > 0:
            self._pause(wait)
        self._next = max(self._next, self._clock()) + self._gap
        with self._opener.open(request, timeout=self._timeout) as answer:
            content = answer.read(MAX_ANSWER + 1)
        if len(content) > MAX_ANSWER:
            raise WebError("its answer is larger than any that was expected", 200)
        return content


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def checked_url(url: str, option: str) -> str:
    """The URL without a slash at its end. Raises GeneError when it is not an http(s) address."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or any(c.isspace() for c in url):
        raise GeneError(f"{option} {url:.80} is not an address; give one such as https://host/v1.")
    return url.rstrip("/")


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise WebError("its answer is not JSON", 200) from None


def _asked_pause(header: str | None) -> float:
    return float(header) if header and header.isascii() and header.isdigit() else 0.0


def _reason(error: Exception) -> str:
    """A few words; the reasons of URLError are exceptions themselves."""
    cause = getattr(error, "reason", error)
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return str(cause)[:100] or type(cause).__name__
