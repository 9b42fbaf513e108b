"""The scripts in examples/ run as they stand: draw and train, then predict a section."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

from napari_dkan.samples import sample_sections as store

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def run(monkeypatch: pytest.MonkeyPatch, script: str, *arguments: object) -> None:
    monkeypatch.setattr("sys.argv", [script, *map(str, arguments)])
    runpy.run_path(str(EXAMPLES / script), run_name="__main__")


def test_train_then_predict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import anndata

    from napari_dkan.model import load_checkpoint

    monkeypatch.setattr(store, "cache_folder", lambda: tmp_path)
    made = tmp_path / "quick.safetensors"
    run(monkeypatch, "train_synthetic.py", "--quick", "-o", made)
    said = capsys.readouterr().out
    assert "dkan: PCC-ALL" in said
    assert "ridge on the same features: PCC-ALL" in said
    checkpoint = load_checkpoint(made)
    assert "simulated" in checkpoint.title
    assert "not measured" in checkpoint.card["training_data"]
    assert not set(checkpoint.card["splits"]["train"]) & set(checkpoint.card["splits"]["test"])

    section = store.get_synthetic_section(12, 2000)  # kept by the first script
    out = tmp_path / "prediction.h5ad"
    run(monkeypatch, "predict_section.py", section.image, "--checkpoint", made, "-o", out)
    data = anndata.read_h5ad(out)
    assert tuple(data.var_names) == checkpoint.panel.symbols
    assert data.n_obs > 5
    assert np.isfinite(data.X).all()
    assert data.obsm["spatial"].min() >= 0
    assert data.obsm["spatial"].max() <= 2000
