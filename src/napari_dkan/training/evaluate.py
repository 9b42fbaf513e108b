"""A checkpoint on a measured section it may never have seen, and plain methods beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import SlideError, SpotsError
from ..expression.labels import Labels, array_coordinates, panel_labels
from ..expression.panel import Panel
from ..inference.device import pick_device
from ..inference.engine import Predictor
from ..inference.predict import predict, tissue_region
from ..inference.target import spots_target
from ..model.checkpoint import Checkpoint
from ..model.encoders import STAIN
from ..slide import PixelSize, Slide
from ..spatial.spots import Spots
from .baselines import BASELINES
from .crossval import DKAN
from .loading import load_section, read_data
from .measured_genes import columns_of
from .metrics import Array, score
from .ready import NamedEncoder
from .report import fold_figures
from .sections import Encoded, Section, encode
from .settings import Settings

if TYPE_CHECKING:
    from anndata import AnnData

Log = Callable[[str], None]


@dataclass(frozen=True)
class Measured:
    """Labelled spots of a section and the panel genes it measures.

    data : its genes under the panel's symbols. rows : of these genes in the checkpoint's panel.
    """

    data: AnnData
    panel: Panel
    rows: tuple[int, ...]
    missing: tuple[str, ...]
    labels: Labels

    @property
    def name(self) -> str:
        return str(self.data.uns["section"])

    def spots(self) -> Spots:
        """The labelled spots."""
        uns, rows = self.data.uns, self.labels.rows
        return Spots(
            np.asarray(self.data.obsm["spatial"], dtype=float)[rows],
            array_coordinates(self.data)[rows],
            tuple(map(str, self.data.obs_names[rows])),
            _known(uns.get("spot_diameter_um")),
            _known(uns.get("spot_pitch_um")),
        )


def measured_section(data: AnnData, checkpoint: Checkpoint) -> Measured:
    """Labels on the checkpoint's scale of the panel genes that the section measures.

    The library size is that over the genes present, so a section that lacks many of them is on a
    slightly different scale. Raises SpotsError when it has none of them, or one labelled spot.
    """
    panel, name = checkpoint.panel, str(data.uns["section"])
    columns = columns_of(panel, data)
    rows = tuple(i for i, column in enumerate(columns) if column is not None)
    if not rows:
        raise SpotsError(
            f"{name} measures none of the checkpoint's {len(panel)} genes "
            f"({', '.join(panel.symbols[:3])}, ...); its genes are named like "
            f"{', '.join(map(str, data.var_names[:3]))}."
        )
    kept = Panel(tuple(panel.genes[i] for i in rows))
    part = data[:, [c for c in columns if c is not None]].copy()
    part.var_names = list(kept.symbols)
    labels = panel_labels(part, kept, checkpoint.label_scale)
    if len(labels.rows) < 2:
        raise SpotsError(
            f"{name} has a single labelled spot; a correlation takes at least two, give more."
        )
    missing = tuple(g.symbol for i, g in enumerate(panel.genes) if i not in set(rows))
    return Measured(part, kept, rows, missing, labels)


def evaluate(
    checkpoint: Checkpoint,
    slide: Slide,
    measured: Measured,
    mpp: float | None = None,
    *,
    baselines: Sequence[str] = (),
    train_data: str | Path | None = None,
    train_sections: Sequence[str] | None = None,
    device: str | None = None,
    encoder_weights: Path | None = None,
    log: Log = lambda line: None,
) -> dict[str, Any]:
    """The report: DKAN, and with training data the training mean and the baselines, as JSON.

    mpp : of the slide where it is known better than by its metadata or the spot array.

    Raises SpotsError when spots lie off the slide or the pixel size is unknown.
    """
    if baselines and train_data is None:
        raise SpotsError("A baseline has to be trained: give --train-data, and --train-sections.")
    size = _pixel_size(slide, measured, mpp)
    target = spots_target(measured.spots(), slide.width, slide.height, measured.name)
    predictor = Predictor(
        slide, checkpoint, size.mpp, tissue_region(slide, size.mpp), device, encoder_weights
    )
    prediction = predict(predictor, target, size.origin)
    if prediction.failed.any():
        raise SlideError(
            f"{int(prediction.failed.sum()):,} of {len(target):,} spots on {slide.path.name} "
            "cannot be read: the slide is damaged there; export it again."
        )
    values = prediction.values[:, list(measured.rows)]
    predicted: dict[str, Array] = {DKAN: values}
    if train_data is not None:
        for method, given in _baselines(
            checkpoint,
            measured,
            size,
            train_data,
            train_sections,
            ("training_mean", *(b for b in baselines if b != "training_mean")),
            device,
            encoder_weights,
            log,
        ).items():
            predicted[method] = given
    labels = {measured.name: measured.labels.values}
    each = {m: score({measured.name: p}, labels).per_gene for m, p in predicted.items()}
    trained_on = checkpoint.card.get("training_data", {})
    prints = trained_on.get("slide_fingerprints", {}) if isinstance(trained_on, dict) else {}
    return {
        "format": 1,
        "kind": "evaluation",
        "section": measured.name,
        "slide": slide.path.name,
        "mpp": size.mpp,
        "mpp_origin": size.origin,
        "seen_in_training": isinstance(prints, dict) and slide.fingerprint() in prints.values(),
        "spots": len(target),
        "spots_dropped_without_panel_counts": list(measured.labels.dropped),
        "genes": len(measured.panel),
        "genes_missing": list(measured.missing),
        "label_scale": checkpoint.label_scale.name,
        "metrics": {m: fold_figures({measured.name: p}, labels) for m, p in predicted.items()},
        "per_gene_pcc": {
            symbol: {m: _number(values[i]) for m, values in each.items()}
            for i, symbol in enumerate(measured.panel.symbols)
        },
        "checkpoint": {"title": checkpoint.title, "sha256": checkpoint.sha256},
        "train_sections": list(train_sections or ()),
    }


def _baselines(
    checkpoint: Checkpoint,
    measured: Measured,
    size: PixelSize,
    train_data: str | Path,
    train_sections: Sequence[str] | None,
    methods: Sequence[str],
    device: str | None,
    weights: Path | None,
    log: Log,
) -> dict[str, Array]:
    """Fitted on the training sections, on the checkpoint's own features; (N, G) by method."""
    encoder = checkpoint.tile_encoder(weights)
    picked = pick_device(device)
    named = None
    if checkpoint.encoder.name != STAIN:
        named = NamedEncoder(encoder.to(picked), picked)
    settings = Settings(
        patch_px=checkpoint.patch.px, patch_um=checkpoint.patch.um, augmentation=None
    )

    def prepared(data: AnnData) -> Encoded:
        section = load_section(data, measured.panel, settings, named, checkpoint.label_scale)
        log(f"{section.name}: {len(section)} spots")
        return _encoded(section, encoder)

    training = [
        prepared(_under_symbols(data, measured.panel))
        for data in read_data(train_data, train_sections)
    ]
    own = measured.data.copy()
    own.uns["mpp"] = size.mpp
    test = prepared(own)
    return {m: np.asarray(BASELINES[m].fit(training)(test), np.float32) for m in methods}


def _encoded(section: Section, encoder: Any) -> Encoded:
    return encode(section, encoder)


def _under_symbols(data: AnnData, panel: Panel) -> AnnData:
    """The section with its genes under the panel's symbols; what is missing is told later."""
    columns = columns_of(panel, data)
    known = [(s, c) for s, c in zip(panel.symbols, columns, strict=True) if c is not None]
    part = data[:, [c for _, c in known]].copy()
    part.var_names = [s for s, _ in known]
    return part


def _pixel_size(slide: Slide, measured: Measured, mpp: float | None) -> PixelSize:
    if mpp is not None:
        return PixelSize(mpp, "entered by hand")
    if slide.pixel_size is not None:
        return slide.pixel_size
    fitted = _known(measured.data.uns.get("mpp"))
    if fitted is None:
        raise SpotsError(
            f"{slide.path.name} does not state its pixel size, and the spots are on no array of "
            "known pitch; give it with --mpp, in micrometres per pixel."
        )
    return PixelSize(fitted, str(measured.data.uns.get("mpp_origin") or "spot array"))


def _known(value: Any) -> float | None:
    return None if value is None or not np.isfinite(float(value)) else float(value)


def _number(value: float) -> float | None:
    return None if value != value else round(float(value), 4)
