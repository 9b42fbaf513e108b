"""Pictures of the panels in their states, by screen and theme, to be looked at: ``make panels``.

``make panels ARGS=1366x768`` takes those of one screen. What a program can see is printed: text
that does not fit, and content wider than the panel.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari import Viewer
    from qtpy.QtWidgets import QWidget

    from napari_dkan.viewer.panels.predict.predict_widget import PredictWidget


OUT = Path(__file__).resolve().parent.parent / "build" / "panels"
SCREENS = {  # width and height as the window sees them, and the scale
    "1366x768": (1366, 768, 1),
    "1920x1080": (1920, 1080, 1),
    "1366x768-at-200": (1366, 768, 2),
    "1920x1080-at-200": (1920, 1080, 2),
    "full-hd-at-200": (960, 540, 2),
}
THEMES = "dark", "light"
ANSWER_S = 600.0


def main() -> None:
    """Qt takes the scale once, so that every screen is a process of its own."""
    if len(sys.argv) == 2 and "PANELS_SCREEN" in os.environ:
        take(sys.argv[1])
        return
    for name in sys.argv[1:] or SCREENS:
        with TemporaryDirectory() as folder:  # the settings of a new user
            own = {"XDG_CONFIG_HOME": folder, "NAPARI_CONFIG": f"{folder}/settings.yaml"}
            own |= {"QT_SCALE_FACTOR": str(SCREENS[name][2]), "PANELS_SCREEN": name}
            subprocess.run([sys.executable, __file__, name], env=os.environ | own, check=True)


@dataclass(frozen=True)
class Stage:
    """The window with the section.

    Attributes
    ----------
    viewer : Viewer
    predict : PredictWidget
    folder : Path
        For files.
    """

    viewer: Viewer
    predict: PredictWidget
    folder: Path

    def open(self, title: str) -> Any:
        """Return a panel, in front of the others."""
        from napari_dkan.viewer.session.shortcut_actions import open_panel_dock
        from napari_dkan.viewer.widgets.qt_utils import raise_dock

        open_panel_dock(self.viewer, title)
        panel = next(w for n, w in self.viewer.window.dock_widgets.items() if n.startswith(title))
        raise_dock(panel)
        return panel

    def wait(self, condition: Callable[[], Any], description: str) -> None:
        """Let the window go on until a condition holds."""
        from napari_dkan.viewer import demo

        demo.wait_until(condition, description, ANSWER_S)
        demo.process_events(0.3)


# Name of the picture, and what has to be in sight: a box of a panel, or a window of its own.
States = Iterator["tuple[str, QWidget]"]


def take(screen: str) -> None:
    """All states one after the other, in one window."""
    from napari_dkan.viewer import demo

    OUT.mkdir(parents=True, exist_ok=True)
    width, height, _ = SCREENS[screen]
    viewer, predict, _ = demo.open_section()
    viewer.window.resize(width, height)
    with TemporaryDirectory() as folder:
        stage = Stage(viewer, predict, Path(folder))
        for states in (predicting, comparing, measuring, failing):
            for name, widget in states(stage):
                shoot(viewer, predict, widget, f"{name}-{screen}")
    for panel in list(viewer.window.dock_widgets.values()):
        getattr(panel, "shut_down", lambda: None)()
    viewer.close()


def predicting(stage: Stage) -> States:
    """A spot and a region; several genes, a gene set, tiles like this one, and why here."""
    from napari_dkan.viewer import demo

    predict = stage.predict
    demo.run_scripted_steps(stage.viewer, predict)
    yield "predict", predict.spot_box
    yield "gene", predict.display_section

    several = predict.several_genes_box
    several.genes_field.setText("ERBB2, CD74, COL1A1")
    several.colors_button.click()
    stage.wait(lambda: predict.color_mix.layer is not None, "the colours")
    yield "colours", several
    several.colors_button.click()
    several.grid_button.click()
    stage.wait(lambda: several.grid_window.thumbnails.maps, "the maps")
    yield "side-by-side", several.grid_window
    several.grid_window.close()

    sets = predict.gene_box.gene_set_box
    stage.wait(lambda: not sets.busy, "the gene sets")
    sets.set_combo.setCurrentIndex(1)
    sets.set_combo.activated.emit(1)
    stage.wait(lambda: not predict.gene_decode_job.busy, "the score")
    yield "gene-set", predict.gene_box.more_box
    predict.session.set_gene("ERBB2")

    predict.find_box.genes_button.click()
    stage.wait(lambda: not predict.find_box.busy, "genes like this one")
    yield "similar-genes", predict.find_box
    predict.find_box.tiles_button.click()
    stage.wait(lambda: predict.similar_tiles.result is not None, "tiles like this one")
    yield "similar-tiles", predict.find_box
    predict.find_box.tiles_button.click()

    why = predict.occlusion_box
    why.checkbox.click()
    stage.wait(lambda: why.explainer.explanation is not None, "why here")
    yield "why", why
    why.checkbox.click()


def comparing(stage: Stage) -> States:
    """Classes of regions in their table, and compared by genes and by gene sets."""
    from napari_dkan.viewer.panels.regions.comparison_box import HALLMARK
    from napari_dkan.viewer.session.shortcut_actions import REGIONS_PANEL

    jobs, slide = stage.predict.prediction_jobs, stage.predict.session.slide
    regions = stage.open(REGIONS_PANEL)
    x0, y0, x1, y1 = slide.tissue.bounds
    for share in (0.42, 0.75):
        x, y, size = x0 + share * (x1 - x0), (y0 + y1) / 2, 0.12 * (x1 - x0)
        regions.draw_new_class()
        before = len(regions.model.groups)
        corners = [[y - size, x - size], [y - size, x + size], [y + size, x + size]]
        stage.viewer.layers.selection.active.add_polygons([[*corners, [y + size, x - size]]])
        stage.wait(lambda n=before: len(regions.model.groups) > n, "the region")
    regions.predict_button.click()
    stage.wait(lambda: not jobs.busy, "the tissue")
    stage.wait(lambda: not stage.predict.gene_decode_job.busy, "the genes")
    yield "regions", regions.tree
    box = regions.comparison_box
    for name, of in (("compared", None), ("compared-sets", HALLMARK)):
        if of is not None:
            box.of_combo.setCurrentText(of)
        box.compare_button.click()
        stage.wait(lambda: not box.job_row.busy, "the comparison")
        if of is not None:
            box.show_gene(box.result.predicted.comparison.symbols[0])
        yield name, box
        yield f"{name}-table", box.table
    stage.predict.session.step_gene(1)  # the map of a gene again


def measuring(stage: Stage) -> States:
    """A section on the slide and side by side, its domains, and what fine-tuning starts from."""
    from napari_dkan.samples import fetch_her2st_section
    from napari_dkan.viewer.panels.quality.data.quality_model import MapLayout
    from napari_dkan.viewer.session.shortcut_actions import FINETUNE_PANEL, QUALITY_PANEL

    quality = stage.open(QUALITY_PANEL)
    paths = fetch_her2st_section("C3")
    quality.quality.load([paths.counts, paths.spots], image=paths.image)
    stage.wait(lambda: quality.metrics.summary is not None, "the figures")
    yield "quality", quality.measured_box
    yield "quality-genes", quality.gene_metrics_box
    model = quality.quality.model
    model.set_layout(MapLayout.SIDE_BY_SIDE)
    yield "quality-side-by-side", quality.summary_box
    model.set_layout(MapLayout.STACKED)

    for title, box in (("Gene sets", quality.gene_sets_box), ("Domains", quality.domains_box)):
        quality.collapsibles[title].expand()
        start = box.score_button if title == "Gene sets" else box.find_button
        start.click()
        stage.wait(lambda box=box: not box.job_row.busy, title)
        if title == "Gene sets":
            box.table.selectRow(0)
        yield f"quality-{title.split()[-1].lower()}", box
        quality.value_maps.remove()

    finetune = stage.open(FINETUNE_PANEL)
    yield "finetune", finetune.sections_box


def failing(stage: Stage) -> States:
    """What is said when a file is wrong, something is missing, or predictions are out of date."""
    import numpy as np
    import pandas as pd
    from PIL import Image

    from napari_dkan.samples import fetch_her2st_section
    from napari_dkan.viewer.session.shortcut_actions import PREDICT_PANEL, QUALITY_PANEL

    predict, session, viewer = stage.predict, stage.predict.session, stage.viewer
    quality, message = stage.open(QUALITY_PANEL), session.message
    counts, spots = stage.folder / "counts.tsv", fetch_her2st_section("C3").spots
    for name, index in (("spots", ["91x92", "93x94"]), ("genes", ["10x13", "10x14"])):
        table = pd.DataFrame({"Abc1": [3, 4], "Abc2": [5, 6]}, index=index)
        table.to_csv(counts, sep="\t")
        message.clear()
        quality.quality.load([counts, spots])
        stage.wait(lambda: message.is_warning and not quality.quality.busy, "the refusal")
        yield f"counts-of-other-{name}", quality.measured_box
    quality.quality.remove_section(quality.quality.model.section)

    stage.open(PREDICT_PANEL)
    broken = stage.folder / "broken.safetensors"
    broken.write_bytes(b"no checkpoint")
    message.clear()
    predict.model_box.load(broken)
    stage.wait(lambda: message.is_warning, "the refusal")
    yield "bad-checkpoint", predict.message_label

    message.clear()
    predict.slide_box.pixel_size_field.setValue(1.5 * session.slide.mpp)
    predict.slide_box.apply_button.click()
    predict.slide_box.apply_button.click()  # unlikely, so that it takes two
    yield "stale", predict.message_label

    photo = stage.folder / "photo.png"
    Image.fromarray(np.full((900, 900, 3), 230, np.uint8)).save(photo)
    viewer.open(photo, plugin="napari-dkan")
    stage.wait(lambda: len(session.slides) > 1, "the photo")
    session.viewer_slides.set_current(session.slides[-1])
    yield "no-pixel-size", predict.slide_box


def shoot(viewer: Viewer, predict: PredictWidget, widget: QWidget, name: str) -> None:
    """The window, and all of what the panel holds, in each theme."""
    from imageio.v3 import imwrite

    from napari_dkan.viewer import demo
    from napari_dkan.viewer.widgets.scroll_column import ScrollColumn

    column = None if widget.isWindow() else reveal(widget, ScrollColumn)
    tissue = predict.session.slide.tissue
    if not viewer.canvas.grid.enabled and tissue is not None and not tissue.is_empty:
        demo.fit_view_to_tissue(viewer, predict)
    for theme in THEMES:
        viewer.theme = theme
        demo.process_events(1)
        if column is None:
            widget.grab().save(str(OUT / f"{name}-{theme}.png"))
            continue
        imwrite(OUT / f"{name}-{theme}.png", viewer.screenshot(canvas_only=False, flash=False))
        column.widget().grab().save(str(OUT / f"{name}-{theme}-whole.png"))
    for trouble in troubles(widget if column is None else column.widget()):
        print(f"{name}: {trouble}", flush=True)


def reveal(widget: QWidget, kind: type) -> Any:
    """Open the sections that hold a widget, and scroll to it; return the column."""
    from napari_dkan.viewer import demo
    from napari_dkan.viewer.widgets.fold_section import FoldSection

    parent = widget
    while not isinstance(parent, kind):
        if isinstance(parent, FoldSection):
            parent.expand()
        parent = parent.parent()
    demo.process_events(0.3)
    parent.reveal(widget)
    return parent


def troubles(content: QWidget) -> Iterator[str]:
    """Text that is cut off, and content wider than what is seen of it."""
    from qtpy.QtWidgets import QAbstractButton, QComboBox, QLabel

    if not content.isWindow() and content.width() > content.parentWidget().width():
        yield f"{content.width()} px of content in {content.parentWidget().width()} px"
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


if __name__ == "__main__":
    main()
