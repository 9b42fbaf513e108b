"""OpenGL beside Qt and torch: a safe import of torch, and a report of display and driver as JSON.

`napari-dkan doctor` runs this module in a process of its own (``python -m``).
"""

from __future__ import annotations

import json
import os
import sys
from importlib.util import find_spec


def import_torch() -> None:
    """Import torch safely; call it before the first use of torch in a viewer."""
    loaded = "triton._C.libtriton" in sys.modules  # torch alone does not load it
    if not loaded and sys.platform == "linux" and find_spec("triton"):
        flags = sys.getdlopenflags()
        sys.setdlopenflags(os.RTLD_NOW | os.RTLD_DEEPBIND)
        try:
            import triton._C.libtriton  # noqa: F401
        except ImportError:
            pass  # torch reports a broken triton itself
        finally:
            sys.setdlopenflags(flags)
    import torch  # noqa: F401


def probe_opengl() -> dict[str, str]:
    """Return properties of display and driver by name; "error" if napari cannot draw."""
    from qtpy import API_NAME, QT_VERSION
    from qtpy.QtGui import QGuiApplication, QOffscreenSurface, QOpenGLContext

    app = QGuiApplication(sys.argv[:1])
    properties = {
        "Qt": f"{QT_VERSION} by {API_NAME}, platform {app.platformName()}",
        "screens": ", ".join(
            f"{s.size().width()} x {s.size().height()} at {s.devicePixelRatio():g}"
            for s in app.screens()
        ),
    }
    surface, context = QOffscreenSurface(), QOpenGLContext()
    surface.create()
    if not context.create() or not context.makeCurrent(surface):
        error = (
            "there is no OpenGL here, which napari draws with; update the graphics driver, or "
            "install Mesa"
        )
        return properties | {"error": error}
    from OpenGL import GL

    names = {"renderer": GL.GL_RENDERER, "vendor": GL.GL_VENDOR, "OpenGL": GL.GL_VERSION}
    for name, number in names.items():
        properties[name] = bytes(GL.glGetString(number) or b"unknown").decode(errors="replace")
    context.doneCurrent()
    return properties


if __name__ == "__main__":
    print(json.dumps(probe_opengl()), flush=True)
