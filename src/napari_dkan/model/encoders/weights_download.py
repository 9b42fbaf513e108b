"""Download published weights with progress, cancellation and resumption.

The hub's own client can neither resume nor be cancelled, so the bytes are read here. They are
stored in the hub client's documented cache, where every program on this machine finds them.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ...errors import EncoderError
from .encoder_catalog import resolve_encoder_name
from .encoder_weights import (
    WEIGHTS_FILENAMES,
    cache_sha256,
    find_cached_weights,
    require_hub_reachable,
    translate_hub_errors,
)

if TYPE_CHECKING:
    import requests


CHUNK_BYTES = 2**20
TIMEOUT_S = (10, 60)  # to connect, and between two pieces


@dataclass(frozen=True)
class DownloadProgress:
    """How far a download is, in bytes; total : 0 while it is unknown."""

    done: int
    total: int


def download_weights(name: str, revision: str = "") -> Generator[DownloadProgress, None, Path]:
    """Download an encoder's weights into the hub's cache; yields as it goes, returns the file.

    Whoever stops asking for more stops the download; the next one goes on where it stopped. The
    file is checked against the SHA-256 that the hub states, which is noted.

    Raises EncoderError saying what to do when it cannot be had.
    """
    import huggingface_hub as hub

    from .timm_builder import resolve_timm_model

    what = resolve_timm_model(resolve_encoder_name(name), revision, allow_network=True)
    if not what.repository:
        raise EncoderError(
            f"No weights of {what.name} are published on the hub; give a local weights file."
        )
    here = find_cached_weights(what.repository, what.filename, revision or None)
    if here is not None:
        return here
    require_hub_reachable(what.repository)
    names = (what.filename,) if what.filename else WEIGHTS_FILENAMES
    for filename in names:
        url = hub.hf_hub_url(what.repository, filename, revision=revision or None)
        with translate_hub_errors(what.repository):
            try:
                stated = hub.get_hf_file_metadata(url)
            except hub.errors.EntryNotFoundError:
                continue
        return (yield from _download_file(what.repository, filename, revision or "main", stated))
    raise EncoderError(f"{what.repository} on the hub has no weights that can be used here.")


def _download_file(
    repository: str, filename: str, revision: str, metadata: Any
) -> Generator[DownloadProgress, None, Path]:
    import filelock
    import huggingface_hub as hub

    etag, commit = str(metadata.etag or ""), str(metadata.commit_hash or "")
    if not re.fullmatch(r"[\w-]{8,128}", etag) or not re.fullmatch(r"[0-9a-f]{8,64}", commit):
        raise EncoderError(
            f"The hub does not say which file of {repository} it has; give a local weights file."
        )
    folder = Path(hub.constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    blob = folder / "blobs" / etag
    part = blob.with_name(f"{etag}.napari-dkan")
    with translate_hub_errors(repository):
        part.parent.mkdir(parents=True, exist_ok=True)
        try:
            with filelock.FileLock(f"{part}.lock", timeout=0):
                if not blob.exists():  # it may be there under an older commit
                    digest = yield from _download_bytes(metadata, part)
                    if len(etag) == 64 and digest != etag:  # of large files it is their SHA-256
                        part.unlink()
                        raise EncoderError(
                            f"What came of {repository} is not the file that the hub states (its "
                            "SHA-256 differs); it was not kept, try again."
                        )
                    os.replace(part, blob)
                    cache_sha256(blob, digest)
        except filelock.Timeout:
            raise EncoderError(
                f"The weights of {repository} are being downloaded already; wait for that."
            ) from None
        path = folder / "snapshots" / commit / filename
        _link_snapshot(path, blob)  # its SHA-256 is noted under the name of what it leads to
        if revision != commit:
            refs = folder / "refs" / revision
            refs.parent.mkdir(parents=True, exist_ok=True)
            refs.write_text(commit)
    return path


def _download_bytes(metadata: Any, partial_file: Path) -> Generator[DownloadProgress, None, str]:
    """Fill the file up; returns its SHA-256."""
    total = int(metadata.size or 0)
    digest = hashlib.sha256()
    with partial_file.open("ab+") as file:
        file.seek(0)
        while piece := file.read(16 * CHUNK_BYTES):
            digest.update(piece)
        done = file.tell()
        yield DownloadProgress(done, total)
        if total and done >= total:
            return digest.hexdigest()
        with _open_range_request(metadata.location, done) as answer:
            if done and answer.status_code != 206:  # it starts from the beginning again
                file.truncate(0)
                digest, done = hashlib.sha256(), 0
            for piece in answer.iter_content(CHUNK_BYTES):
                _write_chunk(file, piece)
                digest.update(piece)
                done += len(piece)
                yield DownloadProgress(done, total)
    if total and done < total:
        raise ConnectionError("the connection ended early")
    return digest.hexdigest()


def _write_chunk(file: IO[bytes], chunk: bytes) -> None:
    file.write(chunk)
    file.flush()


@contextmanager
def _open_range_request(location: str, start: int) -> Iterator[requests.Response]:
    import huggingface_hub as hub
    import requests

    headers = {"Accept-Encoding": "identity"}
    # the hub sends on to signed addresses elsewhere, which must not see the person's token
    if urlsplit(location).netloc == urlsplit(hub.constants.ENDPOINT).netloc:
        headers |= hub.utils.build_hf_headers()
    if start:
        headers["Range"] = f"bytes={start}-"
    with requests.get(location, headers=headers, stream=True, timeout=TIMEOUT_S) as answer:
        answer.raise_for_status()
        yield answer


def _link_snapshot(path: Path, blob: Path) -> None:
    """The name in a snapshot leads to the file; where there are no links the file goes there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    try:
        path.symlink_to(os.path.relpath(blob, path.parent))
    except OSError:
        os.replace(blob, path)
