"""The house plan holds: who imports whom, and what start-up loads."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from importlib.metadata import version
from pathlib import Path

import grimp
import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "napari_dkan"
WINDOW = "{'napari', 'qtpy', 'superqt', 'magicgui', 'vispy', 'PySide6', 'PyQt5', 'PyQt6'}"
HEAVY = "{'torch', 'timm', 'lightning', 'scanpy', 'anndata', 'zarr', 'pandas', 'scipy'}"


def core_modules() -> list[str]:
    """Every module outside the viewer, rooms before what is in them."""
    files = (f.relative_to(PACKAGE.parent) for f in sorted(PACKAGE.rglob("*.py")))
    names = (".".join(f.with_suffix("").parts).removesuffix(".__init__") for f in files)
    return [n for n in names if "viewer" not in n.split(".") and not n.endswith("__main__")]


def fresh_python(code: str) -> str:
    """Output of the code in a new interpreter, away from the checkout."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def lint_imports(src: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            Path(sysconfig.get_path("scripts")) / "lint-imports",
            "--no-cache",
            "--config",
            ROOT / "pyproject.toml",
        ],
        cwd=src,
        capture_output=True,
        text=True,
    )


def test_import_contracts() -> None:
    done = lint_imports(ROOT / "src")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("slide/__init__.py", "import napari", "Only the viewer knows"),
        (
            "training/__init__.py",
            "def f():\n    import qtpy",
            "Only the viewer knows napari and Qt",
        ),
        ("spatial/spots.py", "from ..slide import open_slide", "Rooms know only"),
        ("model/__init__.py", "from .. import inference", "Rooms know only"),
        ("viewer/session/viewer_slides.py", "from ..tools import ruler", "Rooms of the window"),
    ],
)
def test_contracts_have_teeth(tmp_path: Path, file: str, line: str, contract: str) -> None:
    copy = tmp_path / "napari_dkan"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    with (copy / file).open("a") as handle:
        handle.write(f"\n{line}\n")
    done = lint_imports(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(f"{contract}.*BROKEN", done.stdout)


def test_no_module_imports_itself_through_others() -> None:
    """Imports inside functions and under TYPE_CHECKING count too."""
    graph = grimp.build_graph("napari_dkan", cache_dir=None)
    modules = sorted(graph.modules)
    row_of = {module: row for row, module in enumerate(modules)}
    edges = [
        (row_of[module], row_of[imported])
        for module in modules
        for imported in graph.find_modules_directly_imported_by(module)
    ]
    rows, columns = np.array(edges).T
    matrix = coo_array((np.ones(len(edges)), (rows, columns)), shape=(len(modules),) * 2)
    _, component_of = connected_components(matrix, directed=True, connection="strong")
    cycles = [
        [modules[row] for row in np.flatnonzero(component_of == component)]
        for component in np.flatnonzero(np.bincount(component_of) > 1)
    ]
    assert cycles == []


def test_start_up_loads_nothing_heavy() -> None:
    """What napari does with the plugin before the user picks it from the menu."""
    found = fresh_python(
        "import sys, napari_dkan\n"
        "from npe2 import PluginManifest\n"
        "assert PluginManifest.from_distribution('napari-dkan').contributions.widgets\n"
        f"print(({WINDOW} | {HEAVY}) & set(sys.modules))"
    )
    assert found == "set()"


def test_rooms_are_light() -> None:
    """The front door of a room loads neither torch nor scanpy; its modules may."""
    rooms = sorted(f.parent.name for f in PACKAGE.glob("*/__init__.py"))
    rooms.remove("viewer")
    found = fresh_python(
        "import sys, importlib\n"
        f"for room in {rooms}:\n"
        "    importlib.import_module('napari_dkan.' + room)\n"
        f"    for name in ({WINDOW} | {HEAVY}) & set(sys.modules):\n"
        "        sys.exit(f'napari_dkan.{room} loads {name}')"
    )
    assert found == ""


def test_core_never_opens_a_window() -> None:
    """The contracts see our imports; this sees what those imports bring along."""
    found = fresh_python(
        "import sys, importlib\n"
        f"for module in {core_modules()}:\n"
        "    importlib.import_module(module)\n"
        f"    for name in {WINDOW} & set(sys.modules):\n"
        "        sys.exit(f'{module} loads {name}')"
    )
    assert found == ""


def test_opening_a_panel_does_not_wait_for_torch() -> None:
    """The window stands still while a module is imported in its thread."""
    found = fresh_python(
        "import sys\n"
        "import napari_dkan.viewer.panels.predict.predict_widget\n"
        "import napari_dkan.viewer.panels.quality.quality_widget\n"
        "import napari_dkan.viewer.panels.finetune.finetune_widget\n"
        "heavy = {'torch', 'timm', 'lightning', 'scanpy', 'anndata', 'pandas', 'matplotlib'}\n"
        "print(*heavy & set(sys.modules))"
    )
    assert found == ""


def test_network_needs_torch_only() -> None:
    """A GPU box without napari, AnnData or zarr can still run the network."""
    modules = [m for m in core_modules() if m.startswith("napari_dkan.model")]
    absent = "['napari', 'qtpy', 'anndata', 'scanpy', 'zarr', 'pandas', 'lightning', 'openslide']"
    found = fresh_python(
        "import sys, importlib\n"
        f"sys.modules.update(dict.fromkeys({absent}))\n"  # None there makes an import fail
        f"for module in {modules}:\n"
        "    importlib.import_module(module)"
    )
    assert found == ""


def test_what_computes_needs_no_readers_of_sections() -> None:
    """A GPU box can predict, explain and fine-tune, and run the benchmarks that need its GPU."""
    modules = ["inference.predictor", "inference.occlusion", "slide", "doctor.compute_checks"]
    modules += ["training.fit.lightning_module", "training.finetuning.finetune_checkpoint"]
    absent = "['napari', 'qtpy', 'anndata', 'scanpy', 'zarr']"
    found = fresh_python(
        "import sys, importlib\n"
        f"sys.modules.update(dict.fromkeys({absent}))\n"
        f"for module in {modules}:\n"
        "    importlib.import_module('napari_dkan.' + module)\n"
        f"sys.path.insert(0, {str(ROOT / 'benchmarks')!r})\n"
        "import gpu, training_step"
    )
    assert found == ""


def test_constraints_pin_what_we_ask_for() -> None:
    """Every direct requirement has one plain pin that satisfies it; no hosts, no paths."""
    pins: dict[str, str] = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line.startswith("#"):
            continue
        match = re.fullmatch(r"([\w.-]+)==([\w.]+)(; sys_platform == \"linux\")?", line)
        assert match, line
        pins[canonicalize_name(match[1])] = match[2]

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    pinned = ("test", "dev", "docs", "cluster")
    for text in sum((extras[name] for name in pinned), project["dependencies"]):
        wanted = Requirement(text)
        if wanted.name == "napari-dkan":
            continue
        assert pins[canonicalize_name(wanted.name)] in wanted.specifier, text


def test_installed_version_is_the_source_version() -> None:
    import napari_dkan

    assert version("napari-dkan") == napari_dkan.__version__
