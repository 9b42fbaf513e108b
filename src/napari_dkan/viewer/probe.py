"""Prints what the display and its OpenGL are, as JSON: `napari-dkan doctor` runs this apart."""

from __future__ import annotations

import json
import sys


def probe_opengl() -> dict[str, str]:
    """By name; "error" says what keeps napari from drawing."""
    from qtpy import API_NAME, QT_VERSION
    from qtpy.QtGui import QGuiApplication, QOffscreenSurface, QOpenGLContext

    app = QGuiApplication(sys.argv[:1])
    told = {
        "Qt": f"{QT_VERSION} by {API_NAME}, platform {app.platformName()}",
        "screens": ", ".join(
            f"{s.size().width()} x {s.size().height()} at {s.devicePixelRatio():g}"
            for s in app.screens()
        ),
    }
    surface, context = QOffscreenSurface(), QOpenGLContext()
    surface.create()
    if not context.create() or not context.makeCurrent(surface):
        return told | {"error": "there is no OpenGL here, which napari draws with; update the "
                       "graphics driver, or install Mesa"}  # fmt: skip
    from OpenGL import GL

    names = {"renderer": GL.GL_RENDERER, "vendor": GL.GL_VENDOR, "OpenGL": GL.GL_VERSION}
    for name, number in names.items():
        told[name] = bytes(GL.glGetString(number) or b"unknown").decode(errors="replace")
    context.doneCurrent()
    return told


if __name__ == "__main__":
    print(json.dumps(probe_opengl()), flush=True)
