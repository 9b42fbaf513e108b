"""Write the byte code of everything that the program, its tests and its tools import.

Runs once after an installation (``tools/make-venv.sh``). Importing is what compiles, so exactly the
modules that are used get byte code: about a quarter of what is installed.
"""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import sys

import napari_dkan

# Imported inside functions, or by the tools around the package.
OTHERS = (
    "build",
    "distributed",
    "hypothesis",
    "lightning.pytorch",
    "mypy.main",
    "napari",
    "napari.layers",
    "napari.qt",
    "napari.viewer",
    "pytest",
    "pytestqt.plugin",
    "scanpy",
    "sklearn.linear_model",
    "timm",
    "transformers",
    "vispy.app.backends._pyside6",
    "xdist.plugin",
)


def main() -> None:
    """Import every module of the package, and of the others those that are installed."""
    sys.dont_write_bytecode = False
    own = (m.name for m in pkgutil.walk_packages(napari_dkan.__path__, "napari_dkan."))
    for name in own:
        if name.endswith("__main__"):
            continue
        try:
            importlib.import_module(name)
        except ImportError as error:  # display libraries that are missing, say
            print(f"not compiled: {name} ({error})", file=sys.stderr)
    for name in OTHERS:
        with contextlib.suppress(ImportError):  # of an extra that was not asked for
            importlib.import_module(name)


if __name__ == "__main__":
    main()
