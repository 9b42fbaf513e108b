"""Write files and folders atomically: complete, or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import OutputError


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary file in the folder of ``path``, and rename it to ``path`` on success.

    On any error the temporary file is removed and an older file at ``path`` stays.

    Raises
    ------
    OutputError
        The file cannot be written (full disk, no permission).
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(suffix=path.suffix, prefix=".writing-", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes files that only their owner can read
        with temporary.open("rb+") as file:  # otherwise a power failure can leave an empty file
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise _output_error(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_write_folder(path: str | Path) -> Iterator[Path]:
    """Yield an empty temporary folder, and rename it to ``path`` on success.

    ``path`` must be new: replacing a folder takes two steps, and its content may belong to the
    user. On any error the temporary folder is removed.

    Raises
    ------
    OutputError
        The folder exists already or cannot be written.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        _check_not_existing(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(suffix=path.suffix, prefix=".writing-", dir=path.parent))
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        # os.rename would silently replace an empty folder that was created in the meantime.
        _check_not_existing(path)
        os.rename(temporary, path)
    except OSError as error:
        raise _output_error(path, error) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def write_json(path: str | Path, content: Any, *, allow_nan: bool = False) -> None:
    """Write indented JSON atomically.

    Raises
    ------
    OutputError
        The file cannot be written.
    ValueError
        The content has NaN or infinity in it, unless ``allow_nan``.
    """
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=allow_nan)
    with atomic_write(path) as file:
        file.write_text(text + "\n", encoding="utf-8")


def require_output_folder(path: str | Path) -> None:
    """Raise OutputError if the folder of an output file does not exist.

    Called before a long computation, whose result could not be written.
    """
    folder = Path(path).parent
    if not folder.is_dir():
        raise OutputError(f"{folder} is not a folder; make it, or write elsewhere.")


def _output_error(path: Path, error: OSError) -> OutputError:
    reason = error.strerror or str(error).splitlines()[0]
    return OutputError(
        f"{path} could not be written ({reason}); choose another folder or free some space."
    )


def _check_not_existing(path: Path) -> None:
    if os.path.lexists(path):
        raise OutputError(f"{path} exists already; choose a new name, or remove it first.")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
