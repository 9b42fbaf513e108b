#!/usr/bin/env bash
# make-venv.sh PYTHON EXTRA: the package in .venv with one of its extras, versions pinned.
set -euo pipefail
python=$1
extra=$2

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "napari-dkan needs Python 3.11 or newer and '$python' is not; name one with make PYTHON=/path/to/python3.12." >&2
    exit 1
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    echo "'$python' cannot make virtual environments; on Debian and Ubuntu install its python3-venv package." >&2
    exit 1
fi

.venv/bin/python -m pip --version >/dev/null 2>&1 || "$python" -m venv --clear .venv
echo "Setting up .venv with napari, torch and the rest; the first time takes minutes and several GB ..."
SECONDS=0
export PIP_DISABLE_PIP_VERSION_CHECK=1
pip=(.venv/bin/python -m pip install -qq -c constraints.txt)
# uv unpacks several wheels at a time, in a third of pip's time, and compiles none. Where it cannot
# install, as with an index that only the settings of pip name, pip does; without compiling all of
# torch, most of which is never imported.
"${pip[@]}" uv && .venv/bin/python -m uv pip install -q --python .venv -c constraints.txt -e ".[$extra]" ||
    "${pip[@]}" --no-compile -e ".[$extra]"
# What is imported is compiled here, once: where PYTHONDONTWRITEBYTECODE is set, as in many containers,
# every later start would otherwise compile it anew.
env -u PYTHONDONTWRITEBYTECODE .venv/bin/python tools/compile_imports.py
echo "Setting up took $SECONDS s."
