"""Weights files of encoders: local files, the Hugging Face cache and hub, and cached SHA-256 hashes."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from torch import Tensor

from ...atomic_write import atomic_write
from ...errors import CheckpointError, EncoderError, OutputError
from ..tensor_files import (
    read_safetensors,
    read_safetensors_header,
    read_torch_file,
    require_within_file_size,
)

_MAX_CACHED_HASHES = 200  # files remembered


def get_weights_sha256(path: Path) -> str:
    """Hex SHA-256 of a file; of one that did not change since it was hashed, the one noted then.

    Raises EncoderError when it cannot be read.
    """
    try:
        stamp = _get_size_and_mtime(path)
        noted = _read_hash_cache().get(_make_cache_key(path))
        if isinstance(noted, dict) and noted.get("stamp") == stamp:
            return str(noted.get("sha256"))
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise EncoderError(
            f"{path} cannot be used as encoder weights: {error.strerror or error}."
        ) from None
    cache_sha256(path, digest)
    return digest


def cache_sha256(path: Path, sha256: str) -> None:
    """Keep the SHA-256 of a file as it is now. Where nothing can be kept it is hashed again."""
    with suppress(OSError, OutputError):
        known = list(_read_hash_cache().items())[-_MAX_CACHED_HASHES:]
        known.append(
            (_make_cache_key(path), {"stamp": _get_size_and_mtime(path), "sha256": sha256})
        )
        with atomic_write(_get_hash_cache_path()) as temporary:
            temporary.write_text(json.dumps(dict(known), indent=1), encoding="utf-8")


def _read_hash_cache() -> dict[str, Any]:
    try:
        data = json.loads(_get_hash_cache_path().read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _make_cache_key(path: Path) -> str:
    return str(path.resolve())


def _get_size_and_mtime(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]


def _get_hash_cache_path() -> Path:
    import platformdirs

    named = os.environ.get("NAPARI_DKAN_CACHE")
    folder = Path(named) if named else platformdirs.user_cache_path("napari-dkan")
    return folder / "weights.json"


# In the order they are looked for; the second is a pickle, which is read as data only.
WEIGHTS_FILENAMES = ("model.safetensors", "pytorch_model.bin")


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file by name; nothing in it is executed.

    Reads .safetensors, and PyTorch's .pth, .pt and .bin: a state dict, or a dict that
    holds one as `state_dict` or `model`. Raises EncoderError when it is neither.
    """
    try:
        with path.open("rb") as file:
            start = file.read(9)
        if start[8:] == b"{" or path.suffix == ".safetensors":
            return read_safetensors(path, list(read_safetensors_header(path).tensors))
        content = read_torch_file(path)
        for key in ("state_dict", "model"):
            if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
                content = content[key]
        if not isinstance(content, Mapping) or not all(
            isinstance(t, Tensor) for t in content.values()
        ):
            raise CheckpointError("it does not hold a network's weights")
        require_within_file_size(path, content.values())
        return {str(n).removeprefix("module."): t for n, t in content.items()}
    except CheckpointError as error:
        raise EncoderError(
            f"{path} cannot be used as encoder weights: {str(error).rstrip('.')}."
        ) from None
    except OSError as error:
        raise EncoderError(
            f"{path} cannot be used as encoder weights: {error.strerror or error}."
        ) from None


def find_cached_weights(repository: str, filename: str | None, revision: str | None) -> Path | None:
    """A hub model's weights file where it has been downloaded before; never asks the network."""
    return _find_in_cache(repository, (filename,) if filename else WEIGHTS_FILENAMES, revision)


def fetch_hub_weights(repository: str, filename: str | None, revision: str | None) -> Path:
    """A hub model's weights file, from the cache where it is there, else downloaded.

    Raises EncoderError saying what to do.
    """
    return _fetch_hub_file(repository, (filename,) if filename else WEIGHTS_FILENAMES, revision)


def read_hub_config(
    repository: str, revision: str | None, allow_network: bool
) -> dict[str, Any] | None:
    """A hub model's `config.json`; None where it is not here and the hub must not be asked.

    Raises EncoderError saying what to do.
    """
    names = ("config.json",)
    path = _find_in_cache(repository, names, revision)
    if path is None:
        if not allow_network:
            return None
        path = _fetch_hub_file(repository, names, revision)
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        config = None
    if not isinstance(config, dict) or not isinstance(config.get("architecture"), str):
        raise EncoderError(f"{repository} on the hub is not a timm model; choose another encoder.")
    return config


def require_hub_reachable(repository: str) -> None:
    """Raises EncoderError when the hub does not answer at all."""
    import huggingface_hub as hub

    if not _is_hub_reachable(hub.constants.ENDPOINT):
        raise _make_unreachable_error(repository)


@contextmanager
def translate_hub_errors(repository: str) -> Iterator[None]:
    """Whatever goes wrong between here and the hub becomes an EncoderError saying what to do."""
    from huggingface_hub import errors

    try:
        yield
    except (EncoderError, errors.EntryNotFoundError):
        raise
    except errors.GatedRepoError:
        raise EncoderError(
            f"The encoder {repository} is gated: accept its licence on its hub page, run "
            "`hf auth login` once, or give a local weights file."
        ) from None
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError):
        raise EncoderError(
            f"The hub shows you no encoder {repository}: check the name and revision, run "
            "`hf auth login` if it is private, or give a local weights file."
        ) from None
    except OSError as error:
        if getattr(error, "errno", None) == 28:
            raise EncoderError(
                f"The disk is full; the weights of {repository} were not kept."
            ) from None
        if isinstance(error, PermissionError):
            raise EncoderError(
                f"The weights of {repository} cannot be kept in {error.filename}: set HF_HOME to "
                "a folder that can be written."
            ) from None
        raise _make_unreachable_error(repository) from None
    except Exception as error:  # the hub's client passes on errors of several http libraries
        raise EncoderError(
            f"The weights of the encoder {repository} could not be fetched "
            f"({type(error).__name__}): try again, or give a local weights file."
        ) from None


def _make_unreachable_error(repository: str) -> EncoderError:
    return EncoderError(
        f"The weights of the encoder {repository} could not be fetched: check the network "
        "connection, or give a local weights file."
    )


def _find_in_cache(
    repository: str, filenames: tuple[str, ...], revision: str | None
) -> Path | None:
    import huggingface_hub as hub

    for filename in filenames:
        cached = hub.try_to_load_from_cache(repository, filename, revision=revision)
        if isinstance(cached, str):
            return Path(cached)
    return None


def _fetch_hub_file(repository: str, filenames: tuple[str, ...], revision: str | None) -> Path:
    import huggingface_hub as hub
    from huggingface_hub import errors

    cached = _find_in_cache(repository, filenames, revision)
    if cached is not None:
        return cached
    require_hub_reachable(repository)
    for filename in filenames:
        with translate_hub_errors(repository):
            try:
                return Path(hub.hf_hub_download(repository, filename, revision=revision))
            except errors.EntryNotFoundError:
                continue
    raise EncoderError(f"{repository} on the hub has no weights that can be used here.")


def _is_hub_reachable(endpoint: str) -> bool:
    """Whether the hub answers at all; its client would retry for half a minute to find out."""
    if os.environ.get("HF_HUB_OFFLINE"):
        return False
    if getproxies():
        return True
    where = urlsplit(endpoint)
    try:
        socket.create_connection((where.hostname or "", where.port or 443), timeout=5).close()
    except OSError:
        return False
    return True
