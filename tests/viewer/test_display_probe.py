"""The display check of `napari-dkan doctor`."""

from __future__ import annotations

from napari_dkan.doctor.check_result import CheckStatus
from napari_dkan.doctor.environment_checks import DISPLAY_PROBE_COMMAND, run_display_probe


def test_display_probe_names_the_renderer():
    found = {f.name: f for f in run_display_probe(DISPLAY_PROBE_COMMAND)}
    assert {f.state for f in found.values()} == {CheckStatus.ok}, found
    assert "platform" in found["Qt"].said and " x " in found["screens"].said
    assert found["renderer"].said and found["OpenGL"].said
