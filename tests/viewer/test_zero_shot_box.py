"""Zero-shot genes: marked wherever they are shown, and disabled without an evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_dkan.viewer.layers.canvas_legend import GENE_LEGEND

from ..zero_shot_files import PROVEN, UNPROVEN, gene_file, with_text

if TYPE_CHECKING:
    from napari_dkan.viewer.panels.predict.predict_widget import PredictWidget


EXPECTED = "expected PCC 0.36; shuffled text 0.28"


@pytest.fixture
def load_checkpoint(panel: PredictWidget, tiny_checkpoint_file, tmp_path, until):
    """Load the small checkpoint with a text basis and this measurement on its card."""

    def take(zero_shot) -> None:
        made = with_text(tiny_checkpoint_file, tmp_path / "text.safetensors", zero_shot)
        panel.model_box.load(made.path)
        until(lambda: panel.session.checkpoint.sha256 == made.sha256)
        until(lambda: not panel.prefetcher.busy)

    return take


@pytest.fixture
def genes(tmp_path):
    return gene_file(tmp_path / "genes.safetensors")


def test_zero_shot_gene_is_marked_everywhere(
    panel: PredictWidget, load_checkpoint, genes, middle, until, qtbot
):
    load_checkpoint(PROVEN)
    box, session = panel.gene_box, panel.session
    assert box.zero_shot_box.add_button.isEnabled() and box.zero_shot_box.reason_label.isHidden()
    box.zero_shot_box.add_genes(genes)
    assert session.gene == "FOXP3" and "FOXP3, MLANA added zero-shot" in panel.message_label.text()
    assert box.search_field.text() == "FOXP3" and f"zero-shot, {EXPECTED}" in box.name_label.text()
    box.search_field.clear()
    qtbot.keyClicks(box.search_field, "mlana")
    completer = box.search_field.completer()
    (line,) = completer.model().stringList()
    assert line.startswith("MLANA  ") and "[zero-shot, expected PCC 0.36" in line
    completer.activated[str].emit(line)
    assert session.gene == "MLANA"

    panel.click_predictor.predict_at(*middle)
    until(lambda: session.spot is not None)
    (overlay,) = session.overlays
    assert overlay.layer.name == "MLANA predicted zero-shot, clicked"
    legend = " ".join(session.viewer.canvas.overlays[GENE_LEGEND].text.split())  # in short lines
    assert legend.startswith("MLANA - predicted zero-shot standard deviations")
    assert EXPECTED in legend
    spots = panel.spot_box
    assert spots.gene_bars.starred == {"FOXP3", "MLANA"} and spots.gene_bars.rows[0][0] == "MLANA"
    assert "FOXP3" not in [row[0] for row in spots.gene_bars.rows]  # its units do not rank
    assert EXPECTED in spots.units_label.text() and "log10" in spots.gene_bars.toolTip()

    session.set_gene("KRT8")
    assert overlay.layer.name == "KRT8 predicted, clicked"
    legend = session.viewer.canvas.overlays[GENE_LEGEND].text
    assert "zero-shot" not in legend and "log scale" in legend
    assert box.name_label.text() == "keratin 8"
    session.step_gene(2)  # past the panel's last gene
    assert session.gene == "FOXP3"


def test_values_of_panel_genes_do_not_change(
    panel: PredictWidget, load_checkpoint, genes, middle, until
):
    load_checkpoint(PROVEN)
    panel.click_predictor.predict_at(*middle)
    until(lambda: panel.session.spot is not None and not panel.click_predictor.busy)
    before = panel.session.spot
    panel.gene_box.zero_shot_box.add_genes(genes)
    panel.click_predictor.predict_at(*middle)
    until(lambda: panel.session.spot is not before and not panel.click_predictor.busy)
    after = panel.session.spot
    assert after.zero_shot_symbols == ("FOXP3", "MLANA")
    np.testing.assert_allclose(after.values[0, :-2], before.values[0], atol=1e-6)
    assert len(panel.session.overlays) == 2  # spots of other genes are another layer


def test_button_is_disabled_without_evaluation_unless_allowed(
    panel: PredictWidget, load_checkpoint, genes
):
    load_checkpoint(UNPROVEN)
    box, unproven = panel.gene_box.zero_shot_box, panel.advanced["unproven"]
    assert not box.add_button.isEnabled() and not box.reason_label.isHidden()
    assert "does not beat shuffled text (PCC 0.29; shuffled text 0.28" in box.reason_label.text()
    box.add_genes(genes)
    assert panel.session.zero_shot is None and "does not beat" in panel.message_label.text()
    unproven.value = True
    assert box.add_button.isEnabled() and box.reason_label.isHidden()
    box.add_genes(genes)
    assert panel.session.gene == "FOXP3"
    assert "does not beat shuffled text" in panel.gene_box.name_label.text()
    unproven.value = False
    assert panel.session.zero_shot is None and panel.session.gene == "ERBB2"


def test_damaged_file_changes_nothing(panel: PredictWidget, load_checkpoint, tmp_path):
    load_checkpoint(PROVEN)
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"PK\x03\x04 no")
    gene = panel.session.gene
    panel.gene_box.zero_shot_box.add_genes(bad)
    assert panel.session.message.is_warning and "bad.safetensors" in panel.message_label.text()
    assert panel.session.zero_shot is None and panel.session.gene == gene


def test_checkpoint_without_text_features_is_reported(panel: PredictWidget):
    box = panel.gene_box.zero_shot_box
    assert (
        not box.add_button.isEnabled()
        and "cannot place genes by their text" in box.reason_label.text()
    )
