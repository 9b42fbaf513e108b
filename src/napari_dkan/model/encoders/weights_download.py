"""Describe published weights, and download them with progress, cancellation and resumption.

The hub's own client can neither resume nor be cancelled, so the bytes are read here. They are
stored in the hub client's documented cache, where every program on this machine finds them.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ...errors import EncoderError
from .encoder_catalog import (
    PUBLISHED_ENCODERS,
    EncoderWeightsInfo,
    create_weights_info,
    resolve_encoder_name,
)
from .encoder_spec import EncoderSpec
from .encoder_weights import (
    WEIGHTS_FILENAMES,
    cache_sha256,
    find_cached_weights,
    make_no_weights_error,
    require_hub_reachable,
    translate_hub_errors,
)

if TYPE_CHECKING:
    import requests


CHUNK_BYTES = 2**20
TIMEOUT_S = (10, 60)  # to connect, and between two chunks


def list_published_weights() -> list[EncoderWeightsInfo]:
    """Describe the weights of the catalogue. Looks at the disk, never at the network."""
    return [get_weights_info_for_spec(known.spec) for known in PUBLISHED_ENCODERS.values()]


def get_weights_info(name: str, revision: str = "") -> EncoderWeightsInfo:
    """Describe an encoder's weights by its name.

    Parameters
    ----------
    name
        Of the catalogue, of any timm model, or ``hf-hub:owner/model``. Only an unknown `hf-hub:`
        name asks the hub.
    revision
        Hub commit or tag, "" for the newest.

    Raises
    ------
    EncoderError
        If there is no such encoder.
    """
    from .timm_encoder import read_timm_spec

    spec = read_timm_spec(resolve_encoder_name(name))
    return get_weights_info_for_spec(replace(spec, revision=revision))


def get_weights_info_for_spec(spec: EncoderSpec) -> EncoderWeightsInfo:
    """Describe the weights of the encoder that a checkpoint names; never asks the network.

    Raises EncoderError if there is no encoder of that name.
    """
    repository, filename, licence = spec.name.removeprefix("hf-hub:"), None, ""
    if spec.name not in PUBLISHED_ENCODERS and repository == spec.name:
        from .timm_builder import resolve_timm_model

        model_spec = resolve_timm_model(spec.name)
        repository, filename = model_spec.repository, model_spec.filename
        licence = str(model_spec.pretrained.get("license") or "")
    cached = (
        find_cached_weights(repository, filename, spec.revision or None) if repository else None
    )
    return create_weights_info(spec, repository, licence, cached)


@dataclass(frozen=True)
class DownloadProgress:
    """Bytes that are downloaded, and the total; 0 while it is unknown."""

    done: int
    total: int


def download_weights(name: str, revision: str = "") -> Generator[DownloadProgress, None, Path]:
    """Download an encoder's weights into the hub's cache.

    Closing the generator cancels the download; the next download resumes where it stopped. The
    file is compared with the SHA-256 that the hub states, which is then cached.

    Yields
    ------
    DownloadProgress
        After each chunk; nothing if the file is in the cache already.

    Returns
    -------
    Path
        The file in the cache.

    Raises
    ------
    EncoderError
        If the weights are not available; the message says what to do.
    """
    import huggingface_hub as hub

    from .timm_builder import require_published, resolve_timm_model

    model_spec = resolve_timm_model(resolve_encoder_name(name), revision, allow_network=True)
    require_published(model_spec)
    repository = model_spec.repository
    cached = find_cached_weights(repository, model_spec.filename, revision or None)
    if cached is not None:
        return cached
    require_hub_reachable(repository)
    names = (model_spec.filename,) if model_spec.filename else WEIGHTS_FILENAMES
    for filename in names:
        url = hub.hf_hub_url(repository, filename, revision=revision or None)
        with translate_hub_errors(repository):
            try:
                metadata = hub.get_hf_file_metadata(url)
            except hub.errors.EntryNotFoundError:
                continue
        return (yield from _download_file(repository, filename, revision or "main", metadata))
    raise make_no_weights_error(repository)


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
    partial_file = blob.with_name(f"{etag}.napari-dkan")
    with translate_hub_errors(repository):
        partial_file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with filelock.FileLock(f"{partial_file}.lock", timeout=0):
                if not blob.exists():  # an older commit may have the same file
                    digest = yield from _download_bytes(metadata, partial_file)
                    # The ETag of a large file is its SHA-256.
                    if len(etag) == 64 and digest != etag:
                        partial_file.unlink()
                        raise EncoderError(
                            f"What came of {repository} is not the file that the hub states (its "
                            "SHA-256 differs); it was not kept, try again."
                        )
                    os.replace(partial_file, blob)
                    cache_sha256(blob, digest)
        except filelock.Timeout:
            raise EncoderError(
                f"The weights of {repository} are being downloaded already; wait for that."
            ) from None
        path = folder / "snapshots" / commit / filename
        _link_snapshot(path, blob)  # the SHA-256 is cached under the resolved path
        if revision != commit:
            refs = folder / "refs" / revision
            refs.parent.mkdir(parents=True, exist_ok=True)
            refs.write_text(commit)
    return path


def _download_bytes(metadata: Any, partial_file: Path) -> Generator[DownloadProgress, None, str]:
    """Append the missing bytes to a file and return the SHA-256 of the whole."""
    total = int(metadata.size or 0)
    digest = hashlib.sha256()
    with partial_file.open("ab+") as file:
        file.seek(0)
        while chunk := file.read(16 * CHUNK_BYTES):
            digest.update(chunk)
        done = file.tell()
        yield DownloadProgress(done, total)
        if total and done >= total:
            return digest.hexdigest()
        with _open_range_request(metadata.location, done) as response:
            if done and response.status_code != 206:  # the server starts from the beginning
                file.truncate(0)
                digest, done = hashlib.sha256(), 0
            for chunk in response.iter_content(CHUNK_BYTES):
                _write_chunk(file, chunk)
                digest.update(chunk)
                done += len(chunk)
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
    # The hub redirects to signed addresses of other hosts, which must not see the user's token.
    if urlsplit(location).netloc == urlsplit(hub.constants.ENDPOINT).netloc:
        headers |= hub.utils.build_hf_headers()  # type: ignore[attr-defined]
    if start:
        headers["Range"] = f"bytes={start}-"
    with requests.get(location, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
        response.raise_for_status()
        yield response


def _link_snapshot(path: Path, blob: Path) -> None:
    """Link a snapshot's file name to the blob; move the blob there if links are not supported."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    try:
        path.symlink_to(os.path.relpath(blob, path.parent))
    except OSError:
        os.replace(blob, path)
