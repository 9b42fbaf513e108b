"""The animated tour of the README, of what a person does in the real window.

Part of ``make screenshots``; alone with ``make screenshots ARGS=tour``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from person import Person, Walk, for_steps
from PIL import Image, ImageChops, ImageDraw
from qtpy.QtCore import QPoint
from qtpy.QtGui import QImage
from qtpy.QtWidgets import QApplication

TOUR = Path(__file__).resolve().parent.parent / "docs" / "images" / "tour.gif"
WINDOW, PICTURE = (1280, 800), (960, 600)
FRAME_MS, GLIDE_FRAMES, HOLD_MS, LOOK_MS = 80, 6, 350, 1500
WAITING_FRAMES = 12  # what takes long is shown in that many frames
POINTER = ((0, 0), (0, 17), (4, 13), (7, 20), (10, 19), (7, 12), (12, 12))


class Guide(Person):
    """A person whose screen is filmed.

    Attributes
    ----------
    frames : list of (PIL.Image.Image, int)
        Pictures with the pointer, and the milliseconds for which each is shown.
    """

    frames: list[tuple[Image.Image, int]]

    def film(self, milliseconds: int = FRAME_MS) -> None:
        """Take a picture; that of an unchanged screen is shown for longer instead."""
        corner = self.window.mapToGlobal(QPoint())
        place = corner.x(), corner.y(), *WINDOW
        picture = _to_pillow(self.window.screen().grabWindow(0, *place).toImage())
        tip = self.pointer - corner
        arrow = [(tip.x() + x, tip.y() + y) for x, y in POINTER]
        ImageDraw.Draw(picture).polygon(arrow, fill="white", outline="black")
        small = picture.resize(PICTURE, Image.Resampling.LANCZOS)
        if self.frames and not ImageChops.difference(self.frames[-1][0], small).getbbox():
            self.frames[-1] = small, self.frames[-1][1] + milliseconds
        else:
            self.frames.append((small, milliseconds))

    def look(self, milliseconds: int = LOOK_MS) -> Walk:
        """Show what there is for a while."""
        yield from for_steps(10)  # drawn to the end
        self.film(milliseconds)

    def wait(self, pattern: str) -> Walk:
        """Wait for a text; a long wait is shown in a few frames."""
        before = len(self.frames)

        def arrived() -> bool:
            self.film()
            return self.sees(pattern)

        yield arrived
        waited = self.frames[before:]
        kept = np.unique(np.linspace(0, len(waited) - 1, WAITING_FRAMES).round().astype(int))
        self.frames[before:] = [(waited[i][0], FRAME_MS) for i in kept] if waited else []

    def _move(self, place: QPoint) -> Walk:
        start, way = self.pointer, place - self.pointer
        is_near = way.manhattanLength() < 60 or QApplication.activePopupWidget() is not None
        steps = 1 if is_near else GLIDE_FRAMES  # on its way it would open other menus
        for step in range(1, steps + 1):
            yield from super()._move(start + way * (step / steps))
            self.film()

    def _act(self, what: str, place: QPoint, do: Callable[[], object]) -> Walk:
        yield from super()._act(what, place, do)
        self.film(HOLD_MS)


def film_tour() -> None:
    """Take the tour and write it."""
    with TemporaryDirectory() as folder:  # the settings of a new user
        os.environ |= {"XDG_CONFIG_HOME": folder, "NAPARI_CONFIG": f"{folder}/settings.yaml"}
        import napari

        viewer = napari.Viewer(title="napari-dkan", show=True)
        viewer.window.resize(*WINDOW)
        guide = Guide(viewer.window._qt_window)
        guide.frames = []
        guide.run(tour(guide))
        print(*guide.actions, sep="\n")
        for panel in viewer.window.dock_widgets.values():
            getattr(panel, "shut_down", lambda: None)()
        viewer.close()
    write_gif(guide.frames, TOUR)
    seconds = sum(ms for _, ms in guide.frames) / 1000
    print(f"{TOUR.name}: {TOUR.stat().st_size // 1000} kB, {seconds:.0f} s")


def tour(guide: Guide) -> Walk:
    """A slide opens, a click, a region, another gene, two regions compared."""
    yield from for_steps(20)
    for entry in ("File", "Open Sample", "napari-dkan", "HER2+"):
        yield from guide.press(entry)
    yield from guide.wait("array spots")
    yield from for_steps(30)
    yield from guide.open_panel("DKAN: predict")
    yield from guide.wait("250 genes")
    yield from for_steps(100)
    yield from guide.click(0.5, 0.45)
    yield from guide.wait(r"\) px")
    yield from guide.look()
    yield from guide.press("Region")
    yield from guide.stroke(ring(0.35, 0.38))
    yield from guide.wait(r"\d tiles")
    yield from guide.press("Predict")
    yield from guide.wait("tiles predicted")
    yield from guide.look()
    yield from guide.press("CD74")
    yield from guide.look()
    yield from guide.open_panel("DKAN: regions")
    yield from guide.press("New")
    yield from guide.stroke(ring(0.62, 0.36))
    yield from guide.press("Predict whole tissue")
    yield lambda: guide.film() or not guide.sees("Predict whole tissue")
    yield from guide.press("Compare")
    yield from guide.wait("one patient")
    yield from guide.look(2 * LOOK_MS)


def ring(x: float, y: float, radius: float = 0.09) -> list[tuple[float, float]]:
    """A round outline on the canvas, in shares of its width and height."""
    angles = np.linspace(0, 2 * np.pi, 18)
    return [(x + radius * np.cos(a), y + 1.2 * radius * np.sin(a)) for a in angles]


def write_gif(frames: Iterable[tuple[Image.Image, int]], path: Path) -> None:
    """Write frames with one palette, so that what does not change costs no bytes."""
    pictures, durations = zip(*frames, strict=True)
    few = pictures[:: max(1, len(pictures) // 12)]
    together = Image.new("RGB", (PICTURE[0], PICTURE[1] * len(few)))
    for row, picture in enumerate(few):
        together.paste(picture, (0, row * PICTURE[1]))
    palette = together.quantize(255)
    first, *others = (p.quantize(palette=palette, dither=Image.Dither.NONE) for p in pictures)
    first.save(path, save_all=True, append_images=others, duration=list(durations), loop=0)


def _to_pillow(image: QImage) -> Image.Image:
    rgb = image.convertToFormat(QImage.Format.Format_RGB888)
    size = rgb.width(), rgb.height()
    return Image.frombuffer("RGB", size, bytes(rgb.constBits()), "raw", "RGB", rgb.bytesPerLine())


if __name__ == "__main__":
    film_tour()
