"""From training sections to what a checkpoint keeps of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import SpotsError
from ..inference.device import pick_device
from ..inference.evidence import NAMES, of_network, of_pixels
from ..model.checkpoint import Checkpoint
from ..model.encoders import STAIN
from ..model.ensemble import Ensemble
from ..model.network import DKAN
from ..model.reference import DISTANCE, Reference, distance, levels_of, whitening
from ..model.ridge import Ridge, multi_scale
from .batches import whole
from .loading import load_section, read_data
from .measured_genes import under_symbols
from .ready import NamedEncoder
from .ridge import choose_ridge
from .sections import GRID, Encoded, SectionEncoder, encode
from .settings import Settings

CHUNK = 64  # spots at once

Numbers = NDArray[np.float32]
Log = Callable[[str], None]


def make_reference(
    sections: Sequence[Encoded], network: DKAN | Ensemble, tissue: str = ""
) -> Reference:
    """What the network was trained on; the ridge is the one it is compared with.

    tissue : organ and species in words.
    """
    seen = [evidence_of(section, network) for section in sections]
    tokens = np.concatenate([tokens for _, tokens in seen])
    mean, axes = whitening(tokens)
    noted = [np.c_[found, distance(tokens, mean, axes)] for found, tokens in seen]
    return Reference(
        spots=len(tokens),
        names=(*NAMES, DISTANCE),
        levels=levels_of(list(np.concatenate(noted).T)),
        slides=tuple(s.section.name for s in sections),
        by_slide=np.stack([n.mean(axis=0) for n in noted]).astype(np.float32),
        mpp=tuple(s.section.mpp for s in sections),
        token_mean=mean,
        token_axes=axes,
        ridge=_ridge(sections, network.config.grid),
        tissue=tissue,
    )


@torch.no_grad()
def evidence_of(encoded: Encoded, network: DKAN | Ensemble) -> tuple[Numbers, Numbers]:
    """What is noted of N spots while they are predicted, (N, E), and their fused tokens (N, D)."""
    mode = network.training
    network.eval()
    try:
        batch = whole(encoded)
        context = network.global_tokens(batch["slide_features"], batch["positions"])
        near = network.on_slide(batch["neighbor_features"], batch["slide_features"])
        tokens, found = [], []
        for start in range(0, len(context), CHUNK):
            s = slice(start, start + CHUNK)
            fused = network.fuse(
                batch["patches"][s], near[s], batch["neighbor_mask"][s], context[s]
            )
            tokens.append(fused.z.numpy())
            found.append(of_network(network, fused, context[s]).numpy())
    finally:
        network.train(mode)
    pixels = of_pixels(encoded.section.patches.permute(0, 2, 3, 1).contiguous().numpy())
    return np.c_[pixels, np.concatenate(found)], np.concatenate(tokens)


def _ridge(sections: Sequence[Encoded], grid: int) -> Ridge | None:
    if grid != GRID:
        return None
    return choose_ridge(
        [multi_scale(s.features.numpy(), s.section.mask.numpy()) for s in sections],
        [s.section.labels.numpy() for s in sections],
    )


def with_reference(
    checkpoint: Checkpoint,
    data: str | Path,
    names: Sequence[str] | None,
    *,
    tissue: str = "",
    encoder_weights: Path | None = None,
    log: Log = lambda line: None,
) -> Checkpoint:
    """The checkpoint with a reference of the sections it was trained on; it is not written.

    Raises SpotsError when a section is another one, or lacks genes of the panel.
    """
    encoder = checkpoint.tile_encoder(encoder_weights)
    named = None
    if checkpoint.encoder.name != STAIN:
        device = pick_device()
        named = NamedEncoder(encoder.to(device), device)
    settings = Settings(
        patch_px=checkpoint.patch.px, patch_um=checkpoint.patch.um, augmentation=None
    )
    trained_on = _slides(checkpoint)
    sections = []
    for part in read_data(data, names):
        section = load_section(
            under_symbols(part, checkpoint.panel),
            checkpoint.panel,
            settings,
            named,
            checkpoint.label_scale,
            checkpoint.stain,
        )
        if trained_on and section.slide not in trained_on.values():
            raise SpotsError(
                f"{section.name} is not among the sections the checkpoint was trained on "
                f"({', '.join(trained_on)}); a reference describes those."
            )
        log(f"{section.name}: {len(section)} spots")
        sections.append(encode(section, cast(SectionEncoder, encoder)))
    made = make_reference(sections, checkpoint.network, tissue)
    return replace(checkpoint, reference=made, sha256="", path=None)


def _slides(checkpoint: Checkpoint) -> dict[str, str]:
    """Fingerprints of the training slides by section, as far as the card has them."""
    data = checkpoint.card.get("training_data")
    prints = data.get("slide_fingerprints") if isinstance(data, dict) else None
    return prints if isinstance(prints, dict) else {}


def reliability_entry(path: str | Path) -> dict[str, Any]:
    """For the card, from the report of benchmarks/reliability.py: how well a score tells errors.

    Raises SpotsError when it is not one.
    """
    try:
        report = json.loads(Path(path).read_text(encoding="utf-8"))
        score, rival = report["score"], report["alone"]["predicted little"]
        kept = score["mse_of_the_most_reliable"]
        ratios = list(score["their_error_over_the_average"].values())
        return {
            "protocol": "sections predicted by networks that never saw them; parts of the score "
            "chosen on the other sections; 0 is a random order of the spots, 1 knowing the errors",
            "gain": report["nested_gain_mse_mean"],
            "gain_sd_over_sections": report["nested_gain_mse_sd"],
            "gain_by_predicted_level_alone": rival["gain_mse_mean"],
            "mse_of_all_spots": _mean(kept["100%"]),
            "mse_of_the_most_reliable_half": _mean(kept["50%"]),
            "mse_of_unreliable_spots_over_average": _mean(ratios),
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SpotsError(
            f"{path} is not the report of a reliability measurement; make it with "
            "benchmarks/reliability.py."
        ) from error


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 3)
