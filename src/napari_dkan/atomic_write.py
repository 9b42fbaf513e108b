"""Write files and folders atomically: complete, or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import OutputError


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it takes the name ``path``.

    On any error the temporary file is removed and an older file at ``path`` stays.
    Raises OutputError naming the file when it cannot be written (a full disk, no access).
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(suffix=path.suffix, prefix=".writing-", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes files that only their owner reads
        with temporary.open("rb+") as file:  # after a power cut the name must not be of nothing
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise _output_error(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_write_folder(path: str | Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside ``path``; on success it takes the name ``path``.

    Only to a new path: replacing a folder would take two steps, and what is in it may be a
    person's. On any error the temporary folder is removed.
    Raises OutputError naming the folder when it exists or cannot be written.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        _check_not_existing(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(suffix=path.suffix, prefix=".writing-", dir=path.parent))
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        _check_not_existing(
            path
        )  # an empty folder that appeared meanwhile would be replaced silently
        os.rename(temporary, path)
    except OSError as error:
        raise _output_error(path, error) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


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
