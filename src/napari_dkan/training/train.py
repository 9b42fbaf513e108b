"""From sections to a checkpoint: the whole of `napari-dkan train` without a command line."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from ..errors import OutputError
from ..expression.genetable import annotate_from, read_panel
from ..expression.her2st import read_section
from ..expression.label_scale import LabelScale
from ..expression.panel import Panel
from ..model.checkpoint import Checkpoint, Patch, save_checkpoint
from ..slide import open_slide
from .crossval import CrossValidation, leave_one_section_out
from .fit import fit
from .gene_text import GeneText, no_gene_text, read_gene_text
from .sections import Section, encode, fit_encoder, prepare_section
from .settings import Settings

if TYPE_CHECKING:
    from anndata import AnnData

Log = Callable[[str], None]
LABELS = LabelScale()


def train(
    data: str | Path,
    sections: Sequence[str],
    panel_file: str | Path,
    out: str | Path,
    *,
    settings: Settings | None = None,
    gene_text_file: str | Path | None = None,
    gene_tables: str | Path | None = None,
    crossval: bool = True,
    card: dict[str, Any] | None = None,
    log: Log = lambda line: None,
) -> Path:
    """Train DKAN on sections in the her2st layout and write a checkpoint.

    data : folder with ST-imgs, ST-cnts and ST-spotfiles, or one that holds it as her2st.
    gene_text_file : ``.npz`` with genes and features; without it genes get random vectors.
    gene_tables : folder with the gene description and alias tables, for names and aliases.
    crossval : measure by leaving one section out first; the number of epochs comes from it.
    card : entries that are added to the checkpoint's card (title, licence, ...).

    Raises a DkanError naming the file that is missing or not as expected.
    """
    if not Path(out).parent.is_dir():  # now, and not after an hour of training
        raise OutputError(f"{Path(out).parent} is not a folder; make it, or write elsewhere.")
    settings = settings or Settings()
    panel = read_panel(panel_file)
    if gene_tables is not None:
        panel = annotate_from(panel, gene_tables)
    if gene_text_file is None:
        text = no_gene_text(panel, settings.text_dim, settings.seed)
    else:
        text = read_gene_text(gene_text_file, panel, settings.text_dim)
    prepared = []
    for name in sections:
        section = load_section(read_section(data, name), panel, settings)
        prepared.append(section)
        without = f", {', '.join(section.dropped)} dropped" if section.dropped else ""
        log(f"{name}: {len(section)} spots{without}, {section.mpp:.4f} um/px")
    checkpoint = train_sections(
        prepared, panel, text, settings=settings, crossval=crossval, card=card, log=log
    )
    saved = save_checkpoint(out, checkpoint, half=True).path
    assert saved is not None
    log(f"wrote {saved}")
    return saved


def load_section(data: AnnData, panel: Panel, settings: Settings) -> Section:
    """A section with the path of its image in ``uns['image']``, made ready for training."""
    with open_slide(data.uns["image"]) as slide:
        section = prepare_section(data, slide, panel, LABELS, settings.patch_um, settings.patch_px)
        return replace(section, slide=slide.fingerprint())


def train_sections(
    sections: Sequence[Section],
    panel: Panel,
    gene_text: GeneText | None = None,
    *,
    settings: Settings | None = None,
    crossval: bool = True,
    card: dict[str, Any] | None = None,
    log: Log = lambda line: None,
) -> Checkpoint:
    """A checkpoint trained on prepared sections, with an honest card; nothing is written.

    With crossval the card carries the leave-one-section-out scores of DKAN, ridge and the
    training mean, and the final network is trained for the median of the folds' epochs.
    Without it, training runs ``settings.epochs`` epochs and the card says that nothing was
    measured.
    """
    settings = settings or Settings()
    text = gene_text or no_gene_text(panel, settings.text_dim, settings.seed)
    measured = None
    epochs = settings.epochs
    if crossval:
        measured = leave_one_section_out(sections, text, settings, log)
        epochs = round(median(measured.epochs))
    log(f"final fit on {', '.join(s.name for s in sections)}: {epochs} epochs")
    encoder = fit_encoder(sections, settings.dim, settings.patch_um)
    network = fit(
        [encode(s, encoder) for s in sections], text, replace(settings, epochs=epochs)
    ).network
    first = sections[0]
    return Checkpoint(
        network=network,
        panel=panel,
        label_scale=LABELS,
        patch=Patch(settings.patch_px, settings.patch_um),
        spot_pitch_um=first.spot_pitch_um,
        spot_diameter_um=first.spot_diameter_um,
        encoder=encoder.spec,
        gene_text=text.source,
        card=_card(sections, panel, settings, epochs, measured) | (card or {}),
        encoder_tensors=encoder.tensors(),
    )


def _card(
    sections: Sequence[Section],
    panel: Panel,
    settings: Settings,
    epochs: int,
    measured: CrossValidation | None,
) -> dict[str, Any]:
    card: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "training_data": {
            "sections": [s.name for s in sections],
            "spots": {s.name: len(s) for s in sections},
            "spots_dropped_without_panel_counts": {s.name: list(s.dropped) for s in sections},
            "um_per_px": {s.name: round(s.mpp, 4) for s in sections},
            "slide_fingerprints": {s.name: s.slide for s in sections if s.slide},
        },
        "training": {**asdict(settings), "epochs": epochs},
    }
    if measured is None:
        return card | {"splits": "none", "metrics": "not measured"}
    report = measured.report()
    pcc = {m: measured.scores[m].per_gene for m in ("dkan", "ridge")}
    return card | {
        "splits": report.pop("protocol"),
        # the two that a list of models has room for, then everything
        "metrics": {
            "pcc_all": report["dkan"]["pcc_all"],
            "ridge_pcc_all": report["ridge"]["pcc_all"],
            **report,
        },
        "per_gene_pcc": {
            symbol: {m: _number(values[i]) for m, values in pcc.items()}
            for i, symbol in enumerate(panel.symbols)
        },
    }


def _number(value: float) -> float | None:
    return None if value != value else round(float(value), 3)
