"""A window with the maps of up to nine genes, which shows the part of the slide of the canvas."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from napari.utils.colormaps import ensure_colormap
from numpy.typing import NDArray
from qtpy.QtCore import QRectF, Qt
from qtpy.QtGui import QImage
from qtpy.QtWidgets import QDialog, QLabel, QVBoxLayout, QWidget

from ...jobs.tile_reader import TileReader
from ...layers.contrast_limits import percentile_limits
from ...layers.slide_tiles import TileValues
from ...layers.tile_map_layer import MAX_RASTER_PX, SMOOTH_NOTE, find_factor, interpolate_tiles
from ...session.slide_layer import ViewerSlide
from ...session.viewer_session import ViewerSession
from ...widgets.map_thumbnails import MapThumbnail, MapThumbnails
from ...widgets.signal_connections import SignalConnections
from ...worker import JobFailure, JobRunner

if TYPE_CHECKING:
    from ....export.histology import SlideOverview


MAX_GENES = 9
N_RAMP_COLORS = 8


class GeneGridWindow(QDialog):
    """Follows the canvas, the map of the current slide and its colours while it is open."""

    def __init__(
        self, session: ViewerSession, connections: SignalConnections, parent: QWidget
    ) -> None:
        super().__init__(parent, Qt.WindowType.Tool)
        self.setWindowTitle("napari-dkan: genes side by side")
        self._session = session
        self._background_of: ViewerSlide | None = None
        self._runner = JobRunner("slide overview")
        self.reader = TileReader(session, connections)
        self.thumbnails = MapThumbnails()
        self.note_label = QLabel()
        self.note_label.setWordWrap(True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 6, 6, 6)
        layout.addWidget(self.thumbnails, 1)
        layout.addWidget(self.note_label)
        camera = session.viewer.scene.camera
        self.thumbnails.gene_selected.connect(session.set_gene)
        self.thumbnails.zoomed.connect(self._zoom)
        connections.connect(self._draw, self.reader.changed, session.settings_changed)
        connections.connect(self._select, session.gene_changed)
        connections.connect(self._follow_view, camera.events.center, camera.events.zoom)
        connections.on_disconnect(self._runner.close)
        self.finished.connect(lambda: self.reader.read(()))
        self.resize(880, 600)

    def show_genes(self, genes: tuple[str, ...]) -> None:
        """Open the window, or show other genes in it."""
        self.reader.read(genes[:MAX_GENES])
        self._select()
        self._follow_view()
        self.show()
        self.raise_()

    def _select(self) -> None:
        self.thumbnails.select(self._session.gene)

    def _zoom(self, factor: float) -> None:
        self._session.viewer.scene.camera.zoom *= factor

    def _follow_view(self, event: object = None) -> None:
        """Show the part of the slide that the canvas shows."""
        slide, viewer = self._session.slide, self._session.viewer
        if slide is None or slide.pixel_size is None or not self.reader.symbols:
            return
        y, x = (float(v) for v in slide.layer.world_to_data(viewer.scene.camera.center[-2:])[-2:])
        scale = max(viewer.scene.camera.zoom, 1e-9) * slide.mpp  # screen px per level-0 px
        height, width = viewer.canvas.size
        self.thumbnails.set_view(
            QRectF(x - width / scale / 2, y - height / scale / 2, width / scale, height / scale)
        )

    def _draw(self) -> None:
        values, slide, session = self.reader.values, self.reader.slide, self._session
        if not self.reader.symbols:
            return
        if values is None or slide is None or values.grid is None:
            self.thumbnails.set_maps((), QRectF(), np.empty((0, 4)), 1.0)
            self.note_label.setText("")
            return
        self._read_background(slide)
        grid = values.grid
        colormap = ensure_colormap(session.settings.colormap)
        ramp = np.asarray(colormap.map(np.linspace(0, 1, N_RAMP_COLORS)))[:, :3]
        maps, factor = [], 1
        for column, symbol in enumerate(values.panel.symbols):
            shown = values.values[:, column]
            chosen = session.settings.contrast_limits.chosen_for(symbol)
            low, high = limits = chosen or percentile_limits([shown])
            raster = grid.to_raster(shown)
            if session.settings.smooth_maps:
                factor = find_factor(raster, MAX_RASTER_PX // len(values.panel))
            drawn = interpolate_tiles(raster, factor)
            share = np.clip((drawn - low) / max(high - low, 1e-9), 0, 1)
            rgba = np.asarray(colormap.map(np.nan_to_num(share).ravel()))
            rgba = (255 * rgba.reshape(*drawn.shape, 4)).astype(np.uint8)
            rgba[~np.isfinite(drawn), 3] = 0
            maps.append(MapThumbnail(symbol, raster, _to_image(rgba), limits, ramp))
        left, top = (grid.first_cell * grid.pitch).tolist()
        rows, columns = grid.shape
        area = QRectF(left, top, columns * grid.pitch, rows * grid.pitch)
        hatched = _hatch(values) if session.settings.hatch_unreliable else np.empty((0, 4))
        self.thumbnails.set_maps(tuple(maps), area, hatched, session.settings.opacity)
        own = "one scale" if session.settings.contrast_limits.fixed else "each gene its own scale"
        own += f", {SMOOTH_NOTE}" if factor > 1 else ""
        self.note_label.setText(
            f"Predicted, {len(values.values):,} tiles of {slide.layer.name}; {own}. Click a map "
            "to show its gene; the view is that of the canvas."
        )

    def _read_background(self, slide: ViewerSlide) -> None:
        """Read the picture of the slide once, in a thread."""
        if slide is self._background_of:
            return
        self._background_of = slide
        self.thumbnails.set_background(None, QRectF())

        def job() -> Iterator[SlideOverview]:
            from ....export.histology import SlideOverview

            yield SlideOverview.from_slide(slide.slide)

        def receive(overview: SlideOverview) -> None:
            area = QRectF(0, 0, slide.slide.width, slide.slide.height)
            self.thumbnails.set_background(_to_image(overview.rgb), area)

        self._runner.start(job, receive, self._on_end)

    def _on_end(self, failure: JobFailure | None) -> None:
        if failure is not None:
            self._session.message.show(failure.message, warning=True)


def _to_image(pixels: NDArray[np.uint8]) -> QImage:
    """A copy of (H, W, 3) or (H, W, 4) pixels."""
    height, width, channels = pixels.shape
    kind = QImage.Format.Format_RGB888 if channels == 3 else QImage.Format.Format_RGBA8888
    data = np.ascontiguousarray(pixels).tobytes()
    return QImage(data, width, height, channels * width, kind).copy()


def _hatch(values: TileValues) -> NDArray[np.float64]:
    """A diagonal (x0, y0, x1, y1) over each unreliable tile."""
    if values.unreliable is None:
        return np.empty((0, 4))
    centres, half = values.xy[values.unreliable], values.pitch / 2
    corner = np.array([-half, half])
    return np.concatenate([centres + corner, centres - corner], axis=1)
