"""What `napari-dkan doctor` says of the display."""

from __future__ import annotations

from napari_dkan.doctor.display import PROBE, probed
from napari_dkan.doctor.finding import State


def test_the_display_says_what_draws():
    found = {f.name: f for f in probed(PROBE)}
    assert {f.state for f in found.values()} == {State.ok}, found
    assert "platform" in found["Qt"].said and " x " in found["screens"].said
    assert found["renderer"].said and found["OpenGL"].said
