"""What the ablations compare: the full setting, and it with one thing changed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from ablation_fit import RankingModule, fit_network
from ablation_sections import EARLIER, EARLIER_VIEWS, Bench, Reading, further_genes
from ablation_tiles import TileRidge, pretrained
from numpy.typing import NDArray

from napari_dkan.expression.panel import Panel
from napari_dkan.training.data.prepared_section import PreparedSection
from napari_dkan.training.fit.fit_model import FittedModel, fit_model
from napari_dkan.training.gene_text import GeneTextFeatures, make_random_gene_text, read_gene_text
from napari_dkan.training.train_settings import TrainSettings

FULL = replace(EARLIER, members=1)
FURTHER = 250  # auxiliary genes

# For each test section its predictions (N, G): as it is, then under each change of stain.
Predictions = dict[str, list[NDArray[np.floating]]]
See = Callable[[PreparedSection], PreparedSection]
Text = Callable[[Bench, TrainSettings], GeneTextFeatures]
Fit = Callable[[Bench, Sequence[PreparedSection], GeneTextFeatures, TrainSettings], FittedModel]


class Variant(Protocol):
    """against : the variant that this one's paired differences are taken from."""

    @property
    def name(self) -> str: ...
    @property
    def what(self) -> str: ...
    @property
    def against(self) -> str: ...
    def run(self, bench: Bench, training: Sequence[str], test: Sequence[str]) -> Predictions: ...


def _text(bench: Bench, settings: TrainSettings) -> GeneTextFeatures:
    return read_gene_text(bench.gene_text, bench.panel, settings.text_dim)


def _fit(
    bench: Bench,
    sections: Sequence[PreparedSection],
    text: GeneTextFeatures,
    settings: TrainSettings,
) -> FittedModel:
    return fit_model(sections, text, settings, bench.epochs)


@dataclass(frozen=True)
class Change:
    """The full setting with another part.

    settings : changes of settings. see : what is done to a section before it is used.
    """

    name: str
    what: str
    settings: dict[str, Any] = field(default_factory=dict)
    reading: Reading = Reading.plain
    see: See = lambda section: section
    text: Text = _text
    fit: Fit = _fit
    against: str = "full"

    def run(self, bench: Bench, training: Sequence[str], test: Sequence[str]) -> Predictions:
        looks = bench.looks(self.reading)
        settings = replace(FULL, **self.settings)
        sections = [self.see(looks[name].plain) for name in training]
        model = self.fit(bench, sections, self.text(bench, settings), settings)
        return {n: [model.predict(self.see(s)) for s in looks[n].all] for n in test}


@dataclass(frozen=True)
class AuxiliaryGenes:
    """Trained on the panel and as many further genes, judged on the panel."""

    name: str = "auxiliary-genes"
    what: str = f"trained on {FURTHER} more genes; twice as many genes a step"
    against: str = "full"

    def run(self, bench: Bench, training: Sequence[str], test: Sequence[str]) -> Predictions:
        looks, own = bench.looks(), len(bench.panel)
        genes, labels = further_genes(bench.counts(), bench.panel, FURTHER)
        settings = replace(FULL, genes_per_step=2 * (FULL.genes_per_step or own))
        sections = [_wider(looks[n].plain, labels[n]) for n in training]
        model = fit_model(sections, self._text(bench, genes), settings, bench.epochs)
        return {n: [model.predict(s)[:, :own] for s in looks[n].all] for n in test}

    def _text(self, bench: Bench, genes: list[str]) -> GeneTextFeatures:
        file = bench.cache / f"genes-{FURTHER}-more.safetensors"
        if not file.is_file():
            build = [sys.executable, "-m", "napari_dkan", "genes", "build"]
            build += ["--panel", str(bench.panel_file), "--genes", ",".join(genes)]
            build += ["--tables", str(bench.data / "genes"), "-o", str(file)]
            subprocess.run(build, check=True)
        panel = Panel.from_symbols([*bench.panel.symbols, *genes])
        return read_gene_text(file, panel, FULL.text_dim)


def _wider(section: PreparedSection, labels: NDArray[np.float32]) -> PreparedSection:
    return replace(section, labels=torch.cat([section.labels, torch.from_numpy(labels)], dim=1))


def _without_views(section: PreparedSection) -> PreparedSection:
    return replace(section, views=())


def _blank(section: PreparedSection) -> PreparedSection:
    views = tuple(replace(v, patches=torch.zeros_like(v.patches)) for v in section.views)
    return replace(section, patches=torch.zeros_like(section.patches), views=views)


def _biobert(bench: Bench, settings: TrainSettings) -> GeneTextFeatures:
    file = bench.data / "genes" / "gene_text_embedding_biobert1024_her2st.npz"
    return read_gene_text(file, bench.panel, settings.text_dim)


def _random(bench: Bench, settings: TrainSettings) -> GeneTextFeatures:
    return make_random_gene_text(bench.panel, settings.text_dim, settings.seed)


def _ranked(
    bench: Bench,
    sections: Sequence[PreparedSection],
    text: GeneTextFeatures,
    settings: TrainSettings,
) -> FittedModel:
    return fit_network(sections, text, settings, bench.epochs, module=RankingModule)


def _pretrained(
    bench: Bench,
    sections: Sequence[PreparedSection],
    text: GeneTextFeatures,
    settings: TrainSettings,
) -> FittedModel:
    trunk = pretrained(bench, [s.name for s in sections])
    return fit_network(sections, text, settings, bench.epochs, trunk=trunk)


STILL = replace(EARLIER_VIEWS, amount=0.0, colour=0.0, background=0.0)

VARIANTS: tuple[Variant, ...] = (
    Change("full", "the defaults, one network"),
    Change("other-seed", "the same with another seed: what chance alone does", {"seed": 3021}),
    Change("no-standardise", "features not relative to their slide", {"standardise": False}),
    Change(
        "same-stain",
        "views moved only, in the section's own stain",
        {"augmentation": STILL},
        Reading.same_stain,
    ),
    Change("no-views", "no views at all", {"augmentation": None}, see=_without_views),
    Change("no-correlation", "no correlation loss", {"correlation": 0.0}),
    Change("no-contrastive", "no contrastive loss", {"contrastive_factor": 0.0}),
    Change(
        "contrastive-1", "contrastive loss weighed as in the paper", {"contrastive_factor": 1.0}
    ),
    Change("no-average", "last weights, not their running mean", {"average": 0.0}),
    Change("blank-target", "target patch blank", see=_blank),
    Change("ensemble-3", "mean of three networks", {"members": 3}),
    AuxiliaryGenes(),
    Change("normalised", "slides brought to a common stain, too", reading=Reading.normalised),
    Change(
        "normalised-only",
        "slides brought to a common stain in place of relative features",
        {"standardise": False},
        Reading.normalised,
    ),
    Change("biobert", "gene text: BioBERT of the refined summaries", text=_biobert),
    Change("random-text", "gene text: random vectors", text=_random),
    Change("ranking", "pairwise ranking loss in place of the correlation loss", fit=_ranked),
    TileRidge("ridge", "ridge on stain statistics", stain=True, learned=False),
    TileRidge("ridge-ssl", "ridge on a VICReg encoder's features", stain=False, learned=True),
    TileRidge("ridge-both", "ridge on both", stain=True, learned=True),
    Change("pretrained-trunk", "target trunk starts from that encoder", fit=_pretrained),
)
