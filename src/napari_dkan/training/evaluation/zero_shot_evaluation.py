"""Evaluate the zero-shot prediction of held-out genes from their text.

The held-out genes enter neither labels, heads, text transformer, text basis nor the expression
input. A network trained without them on all sections but one predicts them on that section from
their description. The control is the same prediction with the description of another held-out gene:
a gain over the control comes from the text and not only from the tissue.
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
from ...model.network.dkan_network import DKAN
from ...model.network.ensemble import Ensemble
from ..data.prepared_section import PreparedSection, encode_section, select_genes
from ..data.section_batches import TrainingBatch, make_section_batch
from ..fit.fit_model import fit_model
from ..genes.gene_text import GeneTextEmbeddings
from ..metrics import gene_pcc
from ..train_settings import TrainSettings

FloatArray = NDArray[np.float64]
GeneRows = NDArray[np.int64]

ZERO_SHOT_PROTOCOL = (
    "held-out genes are in neither labels, heads, text transformer, text basis nor expression "
    "input (their counts are in the library size of the panel); each section is predicted by a "
    "network trained on the others for a fixed number of epochs; PCC per held-out gene, mean over "
    "sections, then genes; shuffled: every gene takes another held-out gene's text; panel mean: "
    "the mean standardised prediction of the genes trained on, the same for every held-out gene; "
    "beats_shuffled: the mean difference exceeds two standard errors, the larger of the one over "
    "genes and the spread over shuffles"
)


@dataclass(frozen=True)
class HeldOutDraw:
    """One draw of H held-out genes, predicted on every section.

    rows : (H,) of the panel. pcc : (H, H) mean over sections of the correlation of gene i with
    what text j predicts. panel_mean : (H,) with the mean prediction of the panel. trained : mean
    PCC of the genes that were trained on.
    """

    rows: GeneRows
    pcc_by_text: FloatArray
    panel_mean_pcc: FloatArray
    trained_genes_pcc: float

    @property
    def own_text_pcc(self) -> FloatArray:
        """(H,) with each gene's own text."""
        return np.diag(self.pcc_by_text)

    def sample_shuffled_pcc(self, count: int, seed: int) -> FloatArray:
        """(count, H) with another's text; no gene keeps its own in any of the permutations."""
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
    log: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """The report of `napari-dkan zeroshot`: plain JSON.

    settings.epochs : of every network; nothing of the held-out genes or the test section chooses
        it. settings.seed : of draws, networks and shuffles.

    Raises SpotsError with a single section, or fewer genes than the draws take.
    """
    if len(sections) < 2:
        raise SpotsError("Leaving one section out takes at least 2 sections; give more.")
    mean = torch.cat([s.labels for s in sections]).mean(dim=0).numpy()
    done = []
    for number, rows in enumerate(draw_held_out_genes(mean, held_out, draws, settings.seed)):
        done.append(
            _evaluate_draw(sections, text, rows, replace(settings, seed=settings.seed + number))
        )
        named = ", ".join(panel.symbols[r] for r in rows[:3])
        log(
            f"draw {number + 1} of {draws} ({named}, ...): PCC {done[-1].own_text_pcc.mean():.3f}, "
            f"shuffled {done[-1].sample_shuffled_pcc(shuffles, settings.seed).mean():.3f}, "
            f"panel mean {done[-1].panel_mean_pcc.mean():.3f}"
        )
    report = summarize_draws(done, shuffles, settings.seed)
    genes = [panel.symbols[r] for d in done for r in d.rows]
    own, by_mean = (np.concatenate(v).tolist() for v in _collect_pccs(done))
    other = np.concatenate(
        [d.sample_shuffled_pcc(shuffles, settings.seed).mean(axis=0) for d in done]
    )
    return {
        "protocol": ZERO_SHOT_PROTOCOL,
        "version": __version__,
        "sections": [s.name for s in sections],
        "gene_text": text.source,
        "text_encoder": text.encoder,
        **report,
        "per_gene": {
            g: {"pcc": _round4(a), "shuffled": _round4(b), "panel_mean": _round4(c)}
            for g, a, b, c in zip(genes, own, other.tolist(), by_mean, strict=True)
        },
        "training": asdict(settings),
    }


def build_zero_shot_card(report: dict[str, Any]) -> dict[str, Any]:
    """The card's entry ``zero_shot``: what a person is told beside such a gene."""
    kept = (
        *("pcc", "shuffled_pcc", "shuffled_spread", "panel_mean_pcc", "difference"),
        *("standard_error", "beats_shuffled", "held_out", "draws", "sections", "text_encoder"),
    )
    card = {key: report[key] for key in kept}
    return card | {"epochs": report["training"]["epochs"], "protocol": report["protocol"]}


def read_zero_shot_card(path: str | Path) -> dict[str, Any]:
    """The same from a report file. Raises SpotsError when it is not one."""
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
    """Disjoint sets of rows, each with one gene of every one of ``held_out`` classes by mean.

    Raises SpotsError when the panel has too few genes.
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
    """Means over all held-out genes of all draws, and the verdict."""
    own, by_mean = map(np.concatenate, _collect_pccs(draws))
    # every shuffle is one of all draws at once, so its mean is what this run would have shown
    other = np.concatenate([d.sample_shuffled_pcc(shuffles, seed) for d in draws], axis=1)
    gain = own - other.mean(axis=0)
    over_genes = gain.std(ddof=1) / np.sqrt(len(gain))
    spread = other.mean(axis=1).std(ddof=1)
    error = max(over_genes, spread)
    return {
        "held_out": len(draws[0].rows),
        "draws": len(draws),
        "pcc": _round4(own.mean()),
        "shuffled_pcc": _round4(other.mean()),
        "shuffled_spread": _round4(spread),
        "panel_mean_pcc": _round4(by_mean.mean()),
        "trained_genes_pcc": _round4(np.mean([d.trained_genes_pcc for d in draws])),
        "difference": _round4(gain.mean()),
        "standard_error": _round4(error),
        "beats_shuffled": bool(gain.mean() > 2 * error),
        "genes_better_than_shuffled": int((gain > 0).sum()),
        "difference_to_panel_mean": _round4((own - by_mean).mean()),
        "standard_error_to_panel_mean": _round4((own - by_mean).std(ddof=1) / np.sqrt(len(own))),
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
    held: GeneRows,
    settings: TrainSettings,
) -> HeldOutDraw:
    """Leave one section out, with a network of all genes but the held-out ones."""
    kept = np.setdiff1d(np.arange(len(text.embeddings)), held)
    known = text.reduce(settings.text_dim, kept.tolist())
    assert known.basis is not None
    new = known.basis.project(text.embeddings[torch.as_tensor(held)])
    pcc, by_mean, trained = [], [], []
    for test in sections:
        training = select_genes([s for s in sections if s is not test], kept.tolist())
        model = fit_model(training, known, settings, settings.epochs)
        ours, theirs = _predict_standardized(
            model.network, make_section_batch(encode_section(test, model.encoder)), new
        )
        labels = test.labels.numpy()
        measured = labels[:, held]
        pcc.append(
            np.stack([gene_pcc(theirs[:, [j] * len(held)], measured) for j in range(len(held))], 1)
        )
        mean = ours.mean(axis=1, keepdims=True)
        by_mean.append(gene_pcc(np.repeat(mean, len(held), axis=1), measured))
        trained.append(np.nanmean(gene_pcc(ours, labels[:, kept])))
    return HeldOutDraw(
        held, _nanmean_over_sections(pcc), _nanmean_over_sections(by_mean), float(np.mean(trained))
    )


@torch.no_grad()
def _predict_standardized(
    network: DKAN | Ensemble, batch: TrainingBatch, features: Tensor
) -> tuple[FloatArray, FloatArray]:
    """Standardised predictions of a whole section: (M, G) of the panel, (M, K) of new genes."""
    context = network.encode_global(batch["slide_features"], batch["positions"])
    near = network.standardize_by_slide(batch["neighbor_features"], batch["slide_features"])
    fused = network.fuse(batch["patches"], near, batch["neighbor_mask"], context)
    panel = network.from_label_scale(network.decode(fused.z))
    new = network.decode_gene_tokens(fused.z, network.encode_new_genes(features))
    return panel.double().numpy(), new.double().numpy()


def _nanmean_over_sections(values: list[FloatArray]) -> FloatArray:
    """Mean over sections; a section in which a gene is constant says nothing about it."""
    stacked = np.stack(values)
    known = ~np.isnan(stacked)
    total = np.where(known, stacked, 0.0).sum(axis=0)
    return total / np.maximum(known.sum(axis=0), 1)


def _collect_pccs(draws: Sequence[HeldOutDraw]) -> tuple[list[FloatArray], list[FloatArray]]:
    return [d.own_text_pcc for d in draws], [d.panel_mean_pcc for d in draws]


def _sample_derangement(size: int, rng: np.random.Generator) -> GeneRows:
    """A permutation of range(size) that leaves nothing in its place."""
    while True:  # one in e is one
        order = rng.permutation(size)
        if (order != np.arange(size)).all():
            return order


def _round4(value: float | np.floating) -> float:
    return round(float(value), 4)
