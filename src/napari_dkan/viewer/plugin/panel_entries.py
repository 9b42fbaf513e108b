"""The panels as the manifest names them: a line says at once that a panel is being opened.

The first panel imports most of the package, and napari shows nothing before a panel is complete.
Each class here makes the panel itself, not one of its own: napari takes classes only, and reads
the signature of their ``__init__``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QWidget

from ..widgets.busy_line import busy_line

if TYPE_CHECKING:
    from napari.viewer import Viewer


class PredictPanel(QWidget):
    """Opens a `PredictWidget`."""

    def __new__(cls, napari_viewer: Viewer) -> Any:
        with busy_line(napari_viewer, "Opening DKAN: predict ..."):
            from ..panels.predict.predict_widget import PredictWidget

            return PredictWidget(napari_viewer)

    def __init__(self, napari_viewer: Viewer) -> None: ...


class QualityPanel(QWidget):
    """Opens a `QualityWidget`."""

    def __new__(cls, napari_viewer: Viewer) -> Any:
        with busy_line(napari_viewer, "Opening DKAN: quality control ..."):
            from ..panels.quality.quality_widget import QualityWidget

            return QualityWidget(napari_viewer)

    def __init__(self, napari_viewer: Viewer) -> None: ...


class FinetunePanel(QWidget):
    """Opens a `FinetuneWidget`."""

    def __new__(cls, napari_viewer: Viewer) -> Any:
        with busy_line(napari_viewer, "Opening DKAN: fine-tune ..."):
            from ..panels.finetune.finetune_widget import FinetuneWidget

            return FinetuneWidget(napari_viewer)

    def __init__(self, napari_viewer: Viewer) -> None: ...


class RegionsPanel(QWidget):
    """Opens a `RegionsWidget`."""

    def __new__(cls, napari_viewer: Viewer) -> Any:
        with busy_line(napari_viewer, "Opening DKAN: regions ..."):
            from ..panels.regions.regions_widget import RegionsWidget

            return RegionsWidget(napari_viewer)

    def __init__(self, napari_viewer: Viewer) -> None: ...
