#!/usr/bin/env bash
# Runs a command on the screen there is, or else on a virtual one.
set -euo pipefail
if [ "$(uname -s)" != Linux ] || [ -n "${DISPLAY:-}" ]; then
    exec "$@"
fi
# A real Wayland session has no use for the virtual X screen; Qt must be told to take it.
export QT_QPA_PLATFORM=xcb VIRTUAL_SCREEN="${SCREEN_SIZE:-1600x1200}x24"
exec xvfb-run --auto-servernum --server-args "-screen 0 $VIRTUAL_SCREEN" "$@"
