"""Pictures of the three panels on a small screen, at 200 %, in both themes: ``make panels``.

Each picture is there to be looked at. What a program can see is printed: text that does not fit,
and content wider than the panel.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

OUT = Path(__file__).resolve().parent.parent / "build" / "panels"
SCREENS = {  # width and height as the window sees them, and the scale
    "1366x768": (1366, 768, 1),
    "1366x768-at-200": (1366, 768, 2),
    "full-hd-at-200": (960, 540, 2),
}
THEMES = "dark", "light"


def main() -> None:
    """Qt takes the scale once, so that every screen is a process of its own."""
    if len(sys.argv) == 2 and sys.argv[1] in SCREENS:
        take(sys.argv[1])
        return
    for name in sys.argv[1:] or SCREENS:
        scale = os.environ | {"QT_SCALE_FACTOR": str(SCREENS[name][2])}
        subprocess.run([sys.executable, __file__, name], env=scale, check=True)


def take(name: str) -> None:
    """The panels one after the other, as a person opens them."""
    from napari_dkan.samples import fetch_her2st_section
    from napari_dkan.viewer import demo
    from napari_dkan.viewer.session.shortcut_actions import (
        FINETUNE_PANEL,
        QUALITY_PANEL,
        open_panel_dock,
    )
    from napari_dkan.viewer.widgets.qt_utils import raise_dock

    OUT.mkdir(parents=True, exist_ok=True)
    width, height, _ = SCREENS[name]
    viewer, predict, _ = demo.open_section()
    viewer.window.resize(width, height)
    demo.run_scripted_steps(viewer, predict)
    demo.fit_view_to_tissue(viewer, predict)
    shoot(viewer, predict, f"predict-{name}")

    open_panel_dock(viewer, QUALITY_PANEL)
    quality = _panel(viewer, QUALITY_PANEL)
    paths = fetch_her2st_section("C3")
    quality.quality.load([paths.counts, paths.spots], image=paths.image)
    demo.wait_until(lambda: quality.metrics.summary is not None, "the figures", 600)
    for fold in quality.collapsibles.values():
        fold.expand()
    raise_dock(quality)
    shoot(viewer, quality, f"quality-{name}")

    open_panel_dock(viewer, FINETUNE_PANEL)
    finetune = _panel(viewer, FINETUNE_PANEL)
    raise_dock(finetune)
    shoot(viewer, finetune, f"finetune-{name}")
    for panel in (finetune, quality, predict):
        panel.shut_down()
    viewer.close()


def shoot(viewer, panel, name: str) -> None:
    """The window, and all of what the panel holds, in each theme."""
    from imageio.v3 import imwrite
    from qtpy.QtWidgets import QScrollArea

    from napari_dkan.viewer import demo

    content = panel.findChild(QScrollArea).widget()
    for theme in THEMES:
        viewer.theme = theme
        demo.process_events(1)
        imwrite(OUT / f"{name}-{theme}.png", viewer.screenshot(canvas_only=False, flash=False))
        content.grab().save(str(OUT / f"{name}-{theme}-whole.png"))
    for trouble in troubles(content):
        print(f"{name}: {trouble}")


def troubles(content) -> Iterator[str]:
    """Text that is cut off, and content wider than what is seen of it."""
    from qtpy.QtWidgets import QAbstractButton, QComboBox, QLabel

    room = content.parentWidget().width()
    if content.width() > room:
        yield f"{content.width()} px of content in {room} px"
    for widget in content.findChildren(QAbstractButton) + content.findChildren(QLabel):
        wraps = isinstance(widget, QLabel) and widget.wordWrap()
        if widget.isVisible() and not wraps and widget.text():
            wanted = widget.minimumSizeHint().width()
            if wanted > widget.width():
                yield f"{widget.text()!r} needs {wanted} px and has {widget.width()}"
    for box in content.findChildren(QComboBox):
        wanted = box.fontMetrics().horizontalAdvance(box.currentText()) + 44  # arrow and margins
        if box.isVisible() and wanted > box.width():
            yield f"{box.currentText()!r} needs {wanted} px and has {box.width()}"


def _panel(viewer, title: str):
    return next(w for n, w in viewer.window.dock_widgets.items() if n.startswith(title))


if __name__ == "__main__":
    main()
