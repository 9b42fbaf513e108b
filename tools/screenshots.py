"""The pictures of the README, taken in the real window: ``make screenshots``."""

from __future__ import annotations

from pathlib import Path

from imageio.v3 import imwrite

from napari_dkan.viewer import demo

OUT = Path(__file__).resolve().parent.parent / "docs" / "images"


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    viewer, panel, title = demo.open_section()
    demo.walk(viewer, panel)
    demo.process_events(1)
    picture = viewer.screenshot(canvas_only=False, flash=False)
    imwrite(OUT / "window.png", picture)
    print(f"{OUT / 'window.png'}: {title}")
    panel.shut_down()
    viewer.close()


if __name__ == "__main__":
    main()
