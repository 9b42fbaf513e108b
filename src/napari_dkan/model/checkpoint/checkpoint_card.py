"""The card of a checkpoint: its text for `napari-dkan info`, and the slides of the training data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checkpoint_file import Checkpoint


_STANDARD_KEYS = ("training_data", "splits", "metrics", "licence")


def describe_checkpoint(checkpoint: Checkpoint) -> str:
    """What a checkpoint is, how good it is beside its baseline, and where it comes from."""
    c, config = checkpoint, checkpoint.network.config
    symbols = c.panel.symbols
    shown = ", ".join(symbols[:8]) + (", ..." if len(symbols) > 8 else "")
    patch = f"{c.patch.um:g} um at {c.patch.px} px ({c.patch.mpp:.3g} um/px)"
    grid = f"{config.grid} x {config.grid} neighbours"
    size = sum(p.numel() for p in c.network.parameters()) / config.members / 1e6
    several = f"mean of {config.members}, each of " if config.members > 1 else ""
    encoder = f"{c.encoder.name}, {c.encoder.dimension} features of {c.encoder.px} px tiles"
    inside = "in this file" if c.encoder_tensors else "not in this file"
    lines = [
        _format_line(c.title, "").strip(),
        _format_line("Genes", f"{len(symbols)}: {shown}"),
        _format_line("Labels", c.label_scale.name),
        _format_line("Patch", f"{patch}, {grid}"),
        _format_line("Spots", f"{c.spot_pitch_um:g} um apart, {c.spot_diameter_um:g} um wide"),
        _format_line(
            "Network", f"{several}{size:.1f} M parameters, {config.dim} wide, {config.trunk}"
        ),
        _format_line("Encoder", f"{encoder}, weights {inside}"),
        _format_line("", f"revision {c.encoder.revision or 'unknown'}"),
        _format_line("", f"licence {c.encoder.licence or 'unknown'}"),
        _format_line("", f"SHA-256 {c.encoder.sha256 or 'unknown'}"),
        _format_line("Stain", _format_stain(c)),
        _format_line("Gene text", c.gene_text or "unknown"),
    ]
    for key in _STANDARD_KEYS:
        lines += _format_entry(key, c.card.get(key, "not stated"))
    for key, value in c.card.items():
        if key not in _STANDARD_KEYS and key != "title":
            lines += _format_entry(key, value)
    lines += [
        _format_line("Made by", c.creator),
        _format_line("File", str(c.path) if c.path else "not saved"),
        _format_line("SHA-256", c.sha256 or "not saved"),
    ]
    return "\n".join(lines)


def _format_stain(checkpoint: Checkpoint) -> str:
    stain = checkpoint.stain
    if stain is None:
        return "as it is"
    return f"every slide is normalised to the training sections ({stain.method.title()})"


def is_trained_on(card: Mapping[str, Any], fingerprint: str) -> bool:
    """Whether a card names the slide of this fingerprint among those it was trained on."""
    data = card.get("training_data")
    prints = data.get("slide_fingerprints") if isinstance(data, dict) else None
    return isinstance(prints, dict) and fingerprint in prints.values()


def _format_entry(key: Any, value: Any, depth: int = 0) -> list[str]:
    """A card entry; objects go on below it, indented, small flat ones beside it."""
    label = str(key).replace("_", " ")
    label = label if depth else label[:1].upper() + label[1:]
    if (
        isinstance(value, dict)
        and 0 < len(value) <= 4
        and all(map(_is_short_scalar, value.values()))
    ):
        return [
            _format_line(
                label, ", ".join(f"{k} {_format_value(v)}" for k, v in value.items()), depth
            )
        ]
    if isinstance(value, dict) and value and depth < 4:
        head = [_format_line(label, "", depth)]
        return head + [line for k, v in value.items() for line in _format_entry(k, v, depth + 1)]
    return [_format_line(label, _format_value(value), depth)]


def _is_short_scalar(value: Any) -> bool:
    return not isinstance(value, dict | list) and len(str(value)) < 20


def _format_value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_format_value(v) for v in value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return "not stated" if value is None else str(value)


def _format_line(label: str, text: str, depth: int = 0) -> str:
    # A card is another's text: control characters must not reach a terminal.
    line = f"  {'  ' * depth}{label:<13} {text}".rstrip()
    return "".join(c if c.isprintable() else " " for c in line)
