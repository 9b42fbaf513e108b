"""The scripts run: train on drawn sections, then predict a section."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

from napari_dkan.samples.sample_sections import synthetic_section_paths

ROOT = Path(__file__).resolve().parent.parent


def run(monkeypatch: pytest.MonkeyPatch, script: str, *arguments: object) -> None:
    monkeypatch.setattr("sys.argv", [script, *map(str, arguments)])
    runpy.run_path(str(ROOT / script), run_name="__main__")


def test_train_then_predict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import anndata

    from napari_dkan.model import load_checkpoint

    made = tmp_path / "quick.safetensors"
    folder = tmp_path / "sections"
    run(monkeypatch, "tools/train_synthetic.py", "--quick", "--folder", folder, "-o", made)
    output = capsys.readouterr().out
    assert "dkan: PCC-ALL" in output
    assert "ridge on the same features: PCC-ALL" in output
    checkpoint = load_checkpoint(made)
    assert "simulated" in checkpoint.title
    assert "not measured" in checkpoint.card["training_data"]
    assert not set(checkpoint.card["splits"]["train"]) & set(checkpoint.card["splits"]["test"])

    section = synthetic_section_paths(folder / "12-2000px", "X12")
    out = tmp_path / "prediction.h5ad"
    script = "examples/predict_section.py"
    run(monkeypatch, script, section.image, "--checkpoint", made, "-o", out)
    data = anndata.read_h5ad(out)
    assert tuple(data.var_names) == checkpoint.panel.symbols
    assert data.n_obs > 5
    assert np.isfinite(data.X).all()
    assert data.obsm["spatial"].min() >= 0
    assert data.obsm["spatial"].max() <= 2000
