"""Controls of the canvas tools: the gene lens and the occlusion map."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSlider,
    QVBoxLayout,
    QWidget,
)
from superqt.utils import signals_blocked

from ...session.shortcut_actions import set_tooltip
from ...session.viewer_session import ViewerSession
from ...tools.gene_lens import MAX_RADIUS_UM, MIN_RADIUS_UM, GeneLens
from ...tools.occlusion_tool import OcclusionExplainer
from ...widgets.signal_connections import SignalConnections

RADIUS_STEP_UM = 50


class LensBox(QWidget):
    """Switches the gene lens and sets its radius."""

    def __init__(self, lens: GeneLens, connections: SignalConnections) -> None:
        super().__init__()
        self._lens = lens
        self.toggle_button = QPushButton("Lens")
        self.toggle_button.setCheckable(True)
        set_tooltip(
            self.toggle_button,
            "Follow the cursor over the slide with a circle that shows this gene's map ({key})\n"
            "Shift and the wheel change its size",
            "lens",
            connections,
        )
        self.radius_slider = QSlider(Qt.Orientation.Horizontal)
        self.radius_slider.setRange(
            round(MIN_RADIUS_UM / RADIUS_STEP_UM), round(MAX_RADIUS_UM / RADIUS_STEP_UM)
        )
        self.radius_slider.setToolTip("Radius of the lens")
        self.radius_label = QLabel()
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.toggle_button)
        layout.addWidget(self.radius_slider, 1)
        layout.addWidget(self.radius_label)
        self.toggle_button.clicked.connect(lens.set_active)
        self.radius_slider.valueChanged.connect(lambda steps: lens.resize(steps * RADIUS_STEP_UM))
        connections.connect(self.refresh, lens.changed)
        self.refresh()

    def refresh(self) -> None:
        """Follow the lens."""
        lens = self._lens
        self.toggle_button.setChecked(lens.active)
        with signals_blocked(self.radius_slider):
            self.radius_slider.setValue(round(lens.radius_um / RADIUS_STEP_UM))
        self.radius_slider.setEnabled(lens.active)
        self.radius_label.setText(f"{lens.radius_um / 1000:.1f} mm")


LEGEND_TEXT = (
    "Covering what is orange lowers {gene}, covering what is blue raises it{beside}: about the "
    "model, not about biology."
)
BESIDE_DEPTH = ", beside the number of molecules, which moves all genes"


class OcclusionBox(QWidget):
    """Switches the occlusion map and explains it; the owner calls `explainer.close`."""

    def __init__(self, session: ViewerSession, connections: SignalConnections) -> None:
        super().__init__()
        self.explainer = OcclusionExplainer(session, connections)
        self.checkbox = QCheckBox("Why here")
        set_tooltip(
            self.checkbox,
            "Which parts of the patch and which of its neighbours carry this gene's value here:\n"
            "each is covered in turn and the model is asked again ({key}).\n"
            "Strong colours are the strongest of the patch and the strongest of the neighbours.",
            "why",
            connections,
        )
        self.legend_label = QLabel()
        self.legend_label.setWordWrap(True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.checkbox)
        layout.addWidget(self.legend_label)
        self.checkbox.clicked.connect(self.explainer.set_active)
        connections.connect(self.refresh, self.explainer.changed)
        self.refresh()

    def refresh(self) -> None:
        """Follow the explainer."""
        explainer = self.explainer
        self.checkbox.setChecked(explainer.active)
        self.legend_label.setVisible(explainer.active)
        # The previous text stays until there is a new one.
        if not explainer.busy or explainer.explanation is not None:
            self.legend_label.setText(self._format_legend())

    def _format_legend(self) -> str:
        explainer, attribution = self.explainer, self.explainer.explanation
        if not explainer.has_spot:
            return "Click on tissue to see why."
        if attribution is None:
            return f"Click again to explain {explainer.session.gene or 'this gene'} here."
        beside = BESIDE_DEPTH if attribution.is_beside_depth else ""
        meaning = LEGEND_TEXT.format(gene=explainer.gene, beside=beside)
        value = attribution.value
        return (
            f"{meaning}\n{explainer.gene} {value:.2f}; with the whole patch covered "
            f"{value - attribution.patch:.2f}, with all its neighbours covered "
            f"{value - attribution.neighborhood:.2f}."
        )
