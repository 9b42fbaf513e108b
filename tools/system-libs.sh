#!/usr/bin/env bash
# Brings the system libraries that Qt, OpenGL and a virtual screen need.
#
# Installs them where apt and the right to use it exist; otherwise one sentence
# names what is missing. Fails only where no window could open at all.
set -euo pipefail

[ "$(uname -s)" = Linux ] || exit 0

packages=(
    xvfb xauth libegl1 libgl1 libopengl0 libxkbcommon-x11-0 libxcb-cursor0 libxcb-icccm4
    libxcb-keysyms1 libxcb-shape0 libxcb-xinerama0 libxcb-randr0 libxcb-render-util0 libdbus-1-3
)
# The same on a distribution without dpkg, by what the loader finds.
libraries=(
    libEGL.so.1 libGL.so.1 libOpenGL.so.0 libxkbcommon-x11.so.0 libxcb-cursor.so.0 libxcb-icccm.so.4
    libxcb-keysyms.so.1 libxcb-shape.so.0 libxcb-xinerama.so.0 libxcb-randr.so.0
    libxcb-render-util.so.0 libdbus-1.so.3
)

missing() {
    if command -v dpkg-query >/dev/null; then
        for package in "${packages[@]}"; do
            dpkg-query -W -f '${Status}\n' "$package" 2>/dev/null |
                grep -q 'ok installed' || echo "$package"
        done
    else
        known=$(PATH="$PATH:/sbin:/usr/sbin" ldconfig -p 2>/dev/null || true)
        for library in "${libraries[@]}"; do
            grep -q "$library" <<<"$known" || echo "$library"
        done
        command -v xvfb-run >/dev/null || echo xvfb-run
    fi
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

may_install() {
    command -v apt-get >/dev/null && { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }
}

mapfile -t absent < <(missing)
[ ${#absent[@]} -gt 0 ] || exit 0

if may_install; then
    echo "Installing system libraries: ${absent[*]}"
    apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300)
    if ! output=$(as_root "${apt[@]}" update 2>&1 &&
        as_root "${apt[@]}" install -y --no-install-recommends "${absent[@]}" 2>&1); then
        echo "$output" >&2
    fi
    mapfile -t absent < <(missing)
    [ ${#absent[@]} -gt 0 ] || exit 0
fi

echo "Missing system packages, please install them: ${absent[*]}" >&2
# Without a screen and without a virtual one no window can open; anything else may still do.
[ -n "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ] || command -v xvfb-run >/dev/null
