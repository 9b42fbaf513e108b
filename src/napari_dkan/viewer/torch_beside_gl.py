"""Loading torch in a process that already draws with OpenGL.

Mesa's software renderer and torch's compiler (triton) each bring an LLVM of their own. When
Mesa's is there first, triton's library binds to it and the process crashes while torch is
imported (seen with torch 2.15 and llvmpipe, as on a machine without a GPU or under Xvfb).
Loading triton's library so that it prefers its own symbols avoids it.
"""

from __future__ import annotations

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
            pass  # a triton without its library is torch's concern, not ours
        finally:
            sys.setdlopenflags(flags)
    import torch  # noqa: F401
