"""Evaluate the zero-shot prediction of held-out genes from their text.

The held-out genes enter neither labels, heads, text transformer, text basis nor the expression
input. A network trained without them on all sections but one predicts them on that section from
their description. The control is the same prediction with the description of another held-out gene:
a gain over the control comes from the text and not only from the tissue. Both are judged by the
depth-partial correlation where the counts of the sections are known.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ... import __version__
from ...errors import SpotsError
from ...expression.panel import Panel
from ...model.network.network_interface import ExpressionNetwork
from ...model.ridge_regression import Float64Array
from ..data.prepared_section import (
    EncodedSection,
    PreparedSection,
    encode_section,
    list_accounts,
    select_genes,
)
from ..data.section_batches import fuse_section
from ..depth_metrics import depth_partial_pcc
from ..fit.fit_model import fit_model
from ..gene_text import GeneTextEmbeddings
from ..metrics import FloatingArray, gene_pcc, nanmean_over_rows
from ..train_settings import LogFunction, TrainSettings, ignore_log

GeneRows = NDArray[np.int64]
# Correlation (G,) of predicted (N, G) with measured values (N, G) of a section.
SectionPcc = Callable[[FloatingArray, FloatingArray, PreparedSection], Float64Array]

ZERO_SHOT_PROTOCOL = (
    "held-out genes are in neither labels, heads, text transformer, text basis nor expression "
    "input (their counts are in the library size of the panel); each section is predicted by a "
    "network trained on the others for a fixed number of epochs; PCC per held-out gene, mean over "
    "sections, then genes; shuffled: every gene takes another held-out gene's text; panel mean: "
    "the mean standardised prediction of the genes trained on, the same for every held-out gene; "
    "beats_shuffled: the mean difference exceeds two standard errors, the larger of the one over "
    "genes and the spread over shuffles; depth_partial: the same with prediction and label "
    "regressed on the depth of the spots, which decides beats_shuffled where it is given"
)
_SUMMARY_KEYS = (
    *("pcc", "shuffled_pcc", "shuffled_spread", "panel_mean_pcc", "difference"),
    *("standard_error", "beats_shuffled"),
)


@dataclass(frozen=True)
class HeldOutDraw:
    """One draw of H held-out genes, predicted on every section, by one kind of correlation.

    Attributes
    ----------
    rows
        (H,) rows of the panel.
    pcc_by_text
        (H, H) mean over sections of the correlation of gene i with the prediction by text j.
    panel_mean_pcc
        (H,) correlation of each gene with the mean prediction of the panel.
    trained_genes_pcc
        Mean PCC of the genes that were trained on.
    """

    rows: GeneRows
    pcc_by_text: Float64Array
    panel_mean_pcc: Float64Array
    trained_genes_pcc: float

    @property
    def own_text_pcc(self) -> Float64Array:
        """(H,) PCC with each gene's own text."""
        return np.diag(self.pcc_by_text)

    def sample_shuffled_pcc(self, count: int, seed: int) -> Float64Array:
        """Sample (count, H) PCC with texts of other genes, permuted without fixed points."""
        rng, h = np.random.default_rng(seed), len(self.rows)
        return np.stack(
            [self.pcc_by_text[np.arange(h), _sample_derangement(h, rng)] for _ in range(count)]
        )


def evaluate_zero_shot(
    sections: Sequence[PreparedSection],
    panel: Panel,
    text: GeneTextEmbeddings,
    settings: TrainSettings,
    *,
    held_out: int = 25,
    draws: int = 3,
    shuffles: int = 100,
    log: LogFunction = ignore_log,
) -> dict[str, Any]:
    """Evaluate zero-shot prediction and build the report of `napari-dkan zeroshot`.

    Parameters
    ----------
    settings
        Its epochs are those of every network, so that neither held-out genes nor test section
        choose them; its seed is that of draws, networks and shuffles.
    held_out, draws
        Number of held-out genes of a draw, and number of draws.
    shuffles
        Number of permutations of the texts.

    Returns
    -------
    The report as plain JSON.

    Raises
    ------
    SpotsError
        With a single section, or fewer genes than the draws need.
    """
    if len(sections) < 2:
        raise SpotsError("Leaving one section out takes at least 2 sections; give more.")
    mean = torch.cat([s.labels for s in sections]).mean(dim=0).numpy()
    results, partial_results = [], []
    for number, rows in enumerate(draw_held_out_genes(mean, held_out, draws, settings.seed)):
        own_settings = replace(settings, seed=settings.seed + number)
        draw, partial = _evaluate_draw(sections, text, rows, own_settings)
        results.append(draw)
        partial_results += [] if partial is None else [partial]
        names = ", ".join(panel.symbols[r] for r in rows[:3])
        log(
            f"draw {number + 1} of {draws} ({names}, ...): PCC {draw.own_text_pcc.mean():.3f}, "
            f"shuffled {draw.sample_shuffled_pcc(shuffles, settings.seed).mean():.3f}, "
            f"panel mean {draw.panel_mean_pcc.mean():.3f}"
        )
    report = summarize_draws(results, shuffles, settings.seed)
    if partial_results:
        by_depth = summarize_draws(partial_results, shuffles, settings.seed)
        report |= {"depth_partial": by_depth, "beats_shuffled": by_depth["beats_shuffled"]}
    genes = [panel.symbols[r] for d in results for r in d.rows]
    own_text = np.concatenate([d.own_text_pcc for d in results]).tolist()
    panel_mean = np.concatenate([d.panel_mean_pcc for d in results]).tolist()
    shuffled = np.concatenate(
        [d.sample_shuffled_pcc(shuffles, settings.seed).mean(axis=0) for d in results]
    ).tolist()
    return {
        "protocol": ZERO_SHOT_PROTOCOL,
        "version": __version__,
        "sections": [s.name for s in sections],
        "read_accounts": list_accounts(sections),
        "gene_text": text.source,
        "text_encoder": text.encoder,
        **report,
        "per_gene": {
            g: {"pcc": _round4(a), "shuffled": _round4(b), "panel_mean": _round4(c)}
            for g, a, b, c in zip(genes, own_text, shuffled, panel_mean, strict=True)
        },
        "training": asdict(settings),
    }


def build_zero_shot_card(report: dict[str, Any]) -> dict[str, Any]:
    """Build the card's entry ``zero_shot``, which is shown with such a gene."""
    keys = (*_SUMMARY_KEYS, "held_out", "draws", "sections", "text_encoder")
    card = {key: report[key] for key in keys}
    if "depth_partial" in report:
        card["depth_partial"] = {key: report["depth_partial"][key] for key in _SUMMARY_KEYS}
    return card | {"epochs": report["training"]["epochs"], "protocol": report["protocol"]}


def read_zero_shot_card(path: str | Path) -> dict[str, Any]:
    """Build the card's entry from a report file; raises SpotsError for another file."""
    try:
        return build_zero_shot_card(json.loads(Path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SpotsError(
            f"{path} is not the report of a zero-shot measurement; make it with napari-dkan "
            "zeroshot."
        ) from error


def draw_held_out_genes(
    mean: NDArray[np.floating], held_out: int, draws: int, seed: int
) -> list[GeneRows]:
    """Draw disjoint sets of genes, each with one gene of each of ``held_out`` classes by mean.

    Raises
    ------
    SpotsError
        When the panel has too few genes.
    """
    if held_out < 2 or draws < 1 or held_out * draws > len(mean) // 2:
        raise SpotsError(
            f"{draws} draws of {held_out} genes do not fit a panel of {len(mean)}: a draw takes at "
            "least 2, and at most half of the panel may be drawn in all."
        )
    rng = np.random.default_rng(seed)
    classes = np.array_split(np.argsort(mean, kind="stable"), held_out)
    order = [rng.permutation(c) for c in classes]
    return [np.sort([c[d] for c in order]).astype(np.int64) for d in range(draws)]


def summarize_draws(draws: Sequence[HeldOutDraw], shuffles: int, seed: int) -> dict[str, Any]:
    """Average over all held-out genes of all draws, and compare with shuffled texts."""
    own_text = np.concatenate([d.own_text_pcc for d in draws])
    panel_mean = np.concatenate([d.panel_mean_pcc for d in draws])
    # a shuffle permutes the texts of all draws, so its mean corresponds to the mean of the run
    shuffled = np.concatenate([d.sample_shuffled_pcc(shuffles, seed) for d in draws], axis=1)
    gain, gain_over_mean = own_text - shuffled.mean(axis=0), own_text - panel_mean
    spread = shuffled.mean(axis=1).std(ddof=1)
    error = max(_standard_error(gain), spread)
    return {
        "held_out": len(draws[0].rows),
        "draws": len(draws),
        "pcc": _round4(own_text.mean()),
        "shuffled_pcc": _round4(shuffled.mean()),
        "shuffled_spread": _round4(spread),
        "panel_mean_pcc": _round4(panel_mean.mean()),
        "trained_genes_pcc": _round4(np.mean([d.trained_genes_pcc for d in draws])),
        "difference": _round4(gain.mean()),
        "standard_error": _round4(error),
        "beats_shuffled": bool(gain.mean() > 2 * error),
        "genes_better_than_shuffled": int((gain > 0).sum()),
        "difference_to_panel_mean": _round4(gain_over_mean.mean()),
        "standard_error_to_panel_mean": _round4(_standard_error(gain_over_mean)),
        "per_draw": [
            {
                "pcc": _round4(d.own_text_pcc.mean()),
                "shuffled_pcc": _round4(d.sample_shuffled_pcc(shuffles, seed).mean()),
                "panel_mean_pcc": _round4(d.panel_mean_pcc.mean()),
                "trained_genes_pcc": _round4(d.trained_genes_pcc),
            }
            for d in draws
        ],
    }


def _evaluate_draw(
    sections: Sequence[PreparedSection],
    text: GeneTextEmbeddings,
    held_out: GeneRows,
    settings: TrainSettings,
) -> tuple[HeldOutDraw, HeldOutDraw | None]:
    """Leave each section out once, with networks trained on all but the held-out genes.

    Returns
    -------
    The draw by plain correlation, and by depth-partial correlation; None for that where the
    counts of a section are not known.
    """
    trained = np.setdiff1d(np.arange(len(text.embeddings)), held_out)
    trained_text = text.reduce(settings.text_dim, trained.tolist())
    assert trained_text.basis is not None
    new_features = trained_text.basis.project(text.embeddings[torch.as_tensor(held_out)])
    predictions = []
    for test in sections:
        training = select_genes([s for s in sections if s is not test], trained.tolist())
        model = fit_model(training, trained_text, settings, settings.epochs)
        panel_prediction, new_prediction = _predict_standardized(
            model.network, encode_section(test, model.encoder), new_features
        )
        predictions.append((panel_prediction, new_prediction))

    def score(correlate: SectionPcc) -> HeldOutDraw:
        return _score_draw(sections, predictions, held_out, correlate)

    has_counts = all(test.counts is not None for test in sections)
    return score(_plain_pcc), score(_partial_pcc) if has_counts else None


def _score_draw(
    sections: Sequence[PreparedSection],
    predictions: Sequence[tuple[Float64Array, Float64Array]],
    held_out: GeneRows,
    correlate: SectionPcc,
) -> HeldOutDraw:
    """Score the predictions (M, G - H) of the panel and (M, H) of held-out genes by section."""
    n_new = len(held_out)
    pcc_by_text, panel_mean_pcc, trained_pcc = [], [], []
    for test, (panel_prediction, new_prediction) in zip(sections, predictions, strict=True):
        labels = test.labels.numpy()
        measured, trained = labels[:, held_out], np.delete(labels, held_out, axis=1)
        by_text = [correlate(new_prediction[:, [j] * n_new], measured, test) for j in range(n_new)]
        pcc_by_text.append(np.stack(by_text, axis=1))
        panel_mean = panel_prediction.mean(axis=1, keepdims=True)
        panel_mean_pcc.append(correlate(np.repeat(panel_mean, n_new, axis=1), measured, test))
        trained_pcc.append(np.nanmean(correlate(panel_prediction, trained, test)))
    return HeldOutDraw(
        held_out,
        _mean_over_sections(pcc_by_text),
        _mean_over_sections(panel_mean_pcc),
        float(np.mean(trained_pcc)),
    )


def _plain_pcc(
    predicted: FloatingArray, measured: FloatingArray, section: PreparedSection
) -> Float64Array:
    return gene_pcc(predicted, measured)


def _partial_pcc(
    predicted: FloatingArray, measured: FloatingArray, section: PreparedSection
) -> Float64Array:
    assert section.counts is not None
    return depth_partial_pcc(predicted, measured, section.counts.depth)


@torch.no_grad()
def _predict_standardized(
    network: ExpressionNetwork, encoded: EncodedSection, features: Tensor
) -> tuple[Float64Array, Float64Array]:
    """Predict a whole section: standardized (M, G) of the panel and (M, K) of new genes."""
    (tokens,) = fuse_section(network, encoded, [torch.arange(len(encoded.section))])
    z = tokens.fused.z
    panel = network.from_label_scale(network.decode(z))
    new = network.decode_gene_tokens(z, network.encode_new_genes(features))
    return panel.double().numpy(), new.double().numpy()


def _mean_over_sections(pccs: list[Float64Array]) -> Float64Array:
    """Average over the sections in which a gene is not constant; 0 when there is none."""
    return np.nan_to_num(nanmean_over_rows(np.stack(pccs)))


def _standard_error(values: Float64Array) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def _sample_derangement(size: int, rng: np.random.Generator) -> GeneRows:
    """Sample a permutation of range(size) without a fixed point."""
    while True:  # one permutation in e has none
        order = rng.permutation(size)
        if (order != np.arange(size)).all():
            return order


def _round4(value: float | np.floating) -> float:
    return round(float(value), 4)
