"""What is folded away under Advanced: device, grid, background, encoder weights."""

from __future__ import annotations

from magicgui.types import FileDialogMode
from magicgui.widgets import CheckBox, ComboBox, Container, FileEdit

from ..inference.device import available_devices, device_label
from .links import Links
from .session import Session


def advanced_box(session: Session, links: Links) -> Container:
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
    weights.changed.connect(lambda path: session.change(encoder_weights=path))
    device.changed.connect(lambda value: session.change(device=value))
    pitch.changed.connect(lambda value: session.change(dense=value))
    tissue.changed.connect(lambda value: session.change(tissue_only=value))
    warm_up.changed.connect(lambda value: session.change(warm_up=value))
    unproven.changed.connect(lambda value: session.change(unproven=value))

    def list_devices() -> None:
        """Once a checkpoint is there torch is loaded, and asking it costs nothing."""
        chosen, devices = device.value, available_devices()
        best = (f"best ({device_label(devices[0])})", "auto")
        device.choices = [best, *((device_label(d), d) for d in devices)]
        device.value = chosen

    links.join(list_devices, session.checkpoint_changed)
    return Container(widgets=[device, pitch, tissue, warm_up, unproven, weights])
