"""What is folded away under Advanced: device, grid, background, encoder weights."""

from __future__ import annotations

from pathlib import Path

from magicgui.types import FileDialogMode
from magicgui.widgets import CheckBox, ComboBox, Container, FileEdit, LineEdit

from ..errors import DkanError
from ..inference.device import list_available_devices, format_device_name
from .links import SignalConnections
from .session import ViewerSession


def make_advanced_box(session: ViewerSession, connections: SignalConnections) -> Container:
    """Device, pitch and background, folded away; the defaults are right for most."""
    device = ComboBox(name="device", label="Device", choices=[("best", "auto")], value="auto")
    pitch = ComboBox(
        name="pitch",
        label="Grid",
        choices=[("as trained", False), ("dense, tiles touch", True)],
        value=session.settings.dense,
        tooltip="Dense maps show more detail; the network was trained at the spots' distance.",
    )
    tissue = CheckBox(name="tissue_only", text="Tissue only", value=session.settings.tissue_only)
    warm_up = CheckBox(
        name="warm_up",
        text="Prepare what lies around the view",
        value=session.settings.warm_up,
        tooltip="Clicks are quick then. Never done on battery.",
    )
    unproven = CheckBox(
        name="unproven",
        text="Unproven genes by description",
        value=session.settings.unproven,
        tooltip="Also where the card does not show that a gene's own text beats another's.",
    )
    weights = FileEdit(
        name="encoder_weights",
        label="Encoder",
        mode=FileDialogMode.EXISTING_FILE,
        nullable=True,
        value=None,
        tooltip="Weights of the tile encoder, where the checkpoint does not bring them along.",
    )
    features = FileEdit(
        name="features",
        label="Features",
        mode=FileDialogMode.EXISTING_FILE,
        nullable=True,
        value=None,
        filter="*.h5",
        tooltip="Tile features that TRIDENT or CLAM made of this slide, used instead of encoding.",
    )
    made_by = LineEdit(
        name="features_encoder",
        label="made by",
        tooltip="The encoder of the features, where the file does not say: uni, conch ...",
    )

    def choose_features() -> None:
        path = features.value if isinstance(features.value, Path) else None
        if path is None and session.feature_files.get(session.slide) is None:
            return
        try:
            session.feature_files.set_file(session, path, made_by.value.strip())
        except DkanError as error:
            session.show_message(str(error), warning=True)

    features.changed.connect(choose_features)
    made_by.native.editingFinished.connect(choose_features)
    weights.changed.connect(lambda path: session.change_settings(encoder_weights=path))
    device.changed.connect(lambda value: session.change_settings(device=value))
    pitch.changed.connect(lambda value: session.change_settings(dense=value))
    tissue.changed.connect(lambda value: session.change_settings(tissue_only=value))
    warm_up.changed.connect(lambda value: session.change_settings(warm_up=value))
    unproven.changed.connect(lambda value: session.change_settings(unproven=value))

    def list_devices() -> None:
        """Once a checkpoint is there torch is loaded, and asking it costs nothing."""
        devices = list_available_devices()
        best = (f"best ({format_device_name(devices[0])})", "auto")
        with device.changed.blocked():
            device.choices = [best, *((format_device_name(d), d) for d in devices)]
        follow()

    def follow() -> None:
        """Show the settings, which napari's preferences change too."""
        settings = session.settings
        warm_up.value = settings.warm_up
        file = session.feature_files.get(session.slide)
        with features.changed.blocked():
            features.value = None if file is None else file.path
        if file is not None and file.encoder:
            made_by.value = file.encoder
        known = {"cuda": "cuda:0"}.get(settings.device, settings.device)
        if known not in device.choices and session.checkpoint is not None:
            session.show_message(f"The device {known} is not on this machine; the best one is used.")
            session.change_settings(device="auto")  # which comes back here
        elif known in device.choices:
            device.value = known

    connections.connect(list_devices, session.checkpoint_changed)
    connections.connect(follow, session.settings_changed, session.slide_changed)
    return Container(widgets=[device, pitch, tissue, warm_up, unproven, weights, features, made_by])
