"""Weights files of encoders: local files, the Hugging Face cache and hub, and cached hashes."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from ...atomic_write import atomic_write
from ...errors import CheckpointError, EncoderError, OutputError
from ...file_hash import compute_sha256
from ..safetensors_header import read_safetensors_header

if TYPE_CHECKING:
    from torch import Tensor

_MAX_CACHED_HASHES = 200  # files


def get_weights_sha256(path: Path) -> str:
    """Return the hex SHA-256 of a file, from the cache if size and time did not change.

    Raises EncoderError if the file cannot be read.
    """
    try:
        stamp = _get_size_and_mtime(path)
        cached = _read_hash_cache().get(_make_cache_key(path))
        if isinstance(cached, dict) and cached.get("stamp") == stamp:
            return str(cached.get("sha256"))
        digest = compute_sha256(path)
    except OSError as error:
        raise _make_unusable_error(path, error.strerror or error) from None
    cache_sha256(path, digest)
    return digest


def cache_sha256(path: Path, sha256: str) -> None:
    """Cache the SHA-256 of a file with its size and time; without effect if that fails."""
    with suppress(OSError, OutputError):
        entries = list(_read_hash_cache().items())[-_MAX_CACHED_HASHES:]
        entry = {"stamp": _get_size_and_mtime(path), "sha256": sha256}
        entries.append((_make_cache_key(path), entry))
        with atomic_write(_get_hash_cache_path()) as temporary:
            temporary.write_text(json.dumps(dict(entries), indent=1), encoding="utf-8")


def _read_hash_cache() -> dict[str, Any]:
    try:
        data = json.loads(_get_hash_cache_path().read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _make_cache_key(path: Path) -> str:
    return str(path.resolve())


def _get_size_and_mtime(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _get_hash_cache_path() -> Path:
    import platformdirs

    setting = os.environ.get("NAPARI_DKAN_CACHE")
    folder = Path(setting) if setting else platformdirs.user_cache_path("napari-dkan")
    return folder / "weights.json"


# In the order of preference; the second is a pickle, which is read as data only.
WEIGHTS_FILENAMES = ("model.safetensors", "pytorch_model.bin")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a weights file by name; nothing in it is executed.

    Parameters
    ----------
    path
        .safetensors, or PyTorch's .pth, .pt or .bin with a state dict, or with a dict that holds
        one as `state_dict` or `model`.

    Raises
    ------
    EncoderError
        If it is neither, or damaged.
    """
    from torch import Tensor  # here, so that the list of encoders does not load it

    from ..tensor_files import read_safetensors, read_torch_file, require_within_file_size

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
        raise _make_unusable_error(path, str(error).rstrip(".")) from None
    except OSError as error:
        raise _make_unusable_error(path, error.strerror or error) from None


def _make_unusable_error(path: Path, reason: object) -> EncoderError:
    return EncoderError(f"{path} cannot be used as encoder weights: {reason}.")


def make_no_weights_error(repository: str) -> EncoderError:
    """The error for a repository without a weights file of a known name."""
    return EncoderError(f"{repository} on the hub has no weights that can be used here.")


def find_cached_weights(repository: str, filename: str | None, revision: str | None) -> Path | None:
    """Find a downloaded weights file of a hub model; never asks the network.

    Parameters
    ----------
    filename
        In the repository, None for the usual names.
    revision
        Hub commit or tag, None for the newest.
    """
    return _find_in_cache(repository, (filename,) if filename else WEIGHTS_FILENAMES, revision)


def fetch_hub_weights(repository: str) -> Path:
    """Return a hub model's weights file, from the cache or else downloaded.

    Raises EncoderError saying what to do.
    """
    return _fetch_hub_file(repository, WEIGHTS_FILENAMES, None)


def read_hub_config(
    repository: str, revision: str | None, allow_network: bool
) -> dict[str, Any] | None:
    """Read a hub model's `config.json`.

    Returns None if it is not in the cache and `allow_network` is false. Raises EncoderError
    saying what to do if it is not available or does not describe a timm model.
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
    """Raise EncoderError if the hub does not answer at all."""
    import huggingface_hub as hub

    if not _is_hub_reachable(hub.constants.ENDPOINT):
        raise _make_unreachable_error(repository)


@contextmanager
def translate_hub_errors(repository: str) -> Iterator[None]:
    """Turn errors of the connection, the hub and the cache into EncoderErrors saying what to do."""
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
    except Exception as error:  # the hub's client raises errors of several HTTP libraries
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
    raise make_no_weights_error(repository)


def _is_hub_reachable(endpoint: str) -> bool:
    """Try to connect to the hub; its client would retry for half a minute."""
    if os.environ.get("HF_HUB_OFFLINE"):
        return False
    if getproxies():
        return True
    address = urlsplit(endpoint)
    try:
        socket.create_connection((address.hostname or "", address.port or 443), timeout=5).close()
    except OSError:
        return False
    return True
