"""The pictures of the README, taken in the real window: ``make screenshots``."""

from __future__ import annotations

from pathlib import Path

from imageio.v3 import imwrite
from napari import Viewer
from numpy.typing import NDArray

from napari_dkan.viewer import demo
from napari_dkan.viewer.predict_widget import PredictWidget

OUT = Path(__file__).resolve().parent.parent / "docs" / "images"


def lens(viewer: Viewer, panel: PredictWidget) -> NDArray:
    """The canvas with the lens over the tissue, and nothing else on it."""
    session = panel.session
    for overlay in list(session.overlays):
        viewer.layers.remove(overlay.layer)
    for layer in viewer.layers:
        layer.visible = layer is session.slide.layer
    session.change(dense=True)
    place = demo.look_at_tissue(viewer, panel).centroid
    panel.lens.resize(1300)
    panel.lens.switch(True)
    panel.lens.move(place.x + 800, place.y)
    demo.process_events(0.5)
    demo.wait(lambda: not panel.lens.busy, "the lens")
    demo.process_events(1)
    return viewer.screenshot(canvas_only=True, flash=False)


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    viewer, panel, title = demo.open_section()
    demo.walk(viewer, panel)
    demo.process_events(1)
    picture = viewer.screenshot(canvas_only=False, flash=False)
    imwrite(OUT / "window.png", picture)
    imwrite(OUT / "lens.png", lens(viewer, panel))
    print(f"{OUT / 'window.png'}, lens.png: {title}")
    panel.shut_down()
    viewer.close()


if __name__ == "__main__":
    main()
