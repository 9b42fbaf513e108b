"""The card of a checkpoint: its text for `napari-dkan info`, and the slides of its training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..encoders.encoder_spec import EncoderSpec
from ..methods.method_configs import TITLES
from .checkpoint_header import CheckpointHeader

if TYPE_CHECKING:
    from .checkpoint_file import Checkpoint

_STANDARD_KEYS = ("training_data", "splits", "metrics", "licence")


def describe_checkpoint(checkpoint: Checkpoint | CheckpointHeader) -> str:
    """Describe a checkpoint in lines of text: contents, training data, metrics and origin."""
    header = checkpoint if isinstance(checkpoint, CheckpointHeader) else checkpoint.header
    config, encoder, patch = header.config, header.encoder, header.patch
    symbols = header.panel.symbols
    shown = ", ".join(symbols[:8]) + (", ..." if len(symbols) > 8 else "")
    size = header.n_parameters / config.members / 1e6
    ensemble = f"mean of {config.members}, each of " if config.members > 1 else ""
    trunk = f"trunk {config.trunk_name}" if config.trunk_name else "no trunk"
    bundled = "in this file" if header.has_encoder_weights else "not in this file"
    entries = [
        ("Genes", f"{len(symbols)}: {shown}"),
        ("Labels", header.label_scale.name),
        (
            "Patch",
            f"{patch.um:g} um at {patch.px} px ({patch.mpp:.3g} um/px), "
            f"{config.grid} x {config.grid} neighbours",
        ),
        (
            "Spots",
            f"{header.spot_pitch_um:g} um apart, {header.spot_diameter_um:g} um wide",
        ),
        ("Method", TITLES[config.method]),
        ("Network", f"{ensemble}{size:.1f} M parameters, {config.dim} wide, {trunk}"),
        (
            "Encoder",
            f"{encoder.name}, {encoder.dimension} features of {encoder.px} px tiles, "
            f"weights {bundled}",
        ),
        *(("", text) for text in _describe_weights(encoder)),
        ("Stain", _format_stain(header)),
        ("Gene text", header.gene_text or "unknown"),
        ("Held out", _format_held_out(header.card)),
    ]
    lines = [_format_line(header.title, "").strip()]
    lines += [_format_line(label, text) for label, text in entries]
    card = _shorten_mean_profile(header.card)
    for key in _STANDARD_KEYS:
        lines += _format_entry(key, card.get(key, "not stated"))
    for key, value in card.items():
        if key not in _STANDARD_KEYS and key != "title":
            lines += _format_entry(key, value)
    lines += [
        _format_line("Made by", header.creator),
        _format_line("File", str(header.path) if header.path else "not saved"),
        _format_line("SHA-256", header.sha256 or "not saved"),
    ]
    return "\n".join(lines)


def _describe_weights(encoder: EncoderSpec) -> list[str]:
    """Revision, licence and hash of an encoder's weights, or a line for each of its parts."""
    if not encoder.parts:
        return [
            f"revision {encoder.revision or 'unknown'}",
            f"licence {encoder.licence or 'unknown'}",
            f"SHA-256 {encoder.sha256 or 'unknown'}",
        ]
    lines = []
    for part in encoder.parts:
        stages = f" stages {', '.join(map(str, part.out_indices))}" if part.out_indices else ""
        digest = f", SHA-256 {part.sha256}" if part.sha256 else ""
        lines.append(
            f"{part.name}{stages}: {part.dimension} features of {part.px} px, "
            f"licence {part.licence or 'unknown'}{digest}"
        )
    return lines


def _format_stain(header: CheckpointHeader) -> str:
    stain = header.stain
    if stain is None:
        return "as it is"
    return f"every slide is normalised to the training sections ({stain.method.title()})"


def _format_held_out(card: Mapping[str, Any]) -> str:
    """The figures to be read first: beside depth, or that the card does not record them."""
    metrics = card.get("metrics")
    metrics = metrics if isinstance(metrics, dict) else {}
    names = "depth_partial_pcc", "ceiling", "share_of_attainable"
    partial, ceiling, share = (metrics.get(name) for name in names)
    if not isinstance(partial, int | float):
        return "depth-partial PCC and ceiling not recorded"
    text = f"depth-partial PCC {_format_value(partial)}"
    if isinstance(ceiling, int | float):
        text += f" of at most {_format_value(ceiling)}"
    if isinstance(share, int | float):
        text += f" ({100 * share:.0f} % of the attainable)"
    ridge, alone = (metrics.get(method) for method in ("ridge", "depth_alone"))
    if isinstance(ridge, dict) and isinstance(ridge.get("depth_partial_pcc"), int | float):
        text += f", ridge {_format_value(ridge['depth_partial_pcc'])}"
    if isinstance(alone, dict) and isinstance(alone.get("pcc_all"), int | float):
        text += f"; depth alone has PCC-ALL {_format_value(alone['pcc_all'])}"
    return text


def _shorten_mean_profile(card: dict[str, Any]) -> dict[str, Any]:
    """Replace the proportion of every gene by their number, which says enough in a text."""
    data = card.get("training_data")
    profile = data.get("mean_profile") if isinstance(data, dict) else None
    if not isinstance(data, dict) or not isinstance(profile, dict):
        return card
    return {**card, "training_data": {**data, "mean_profile": f"of {len(profile)} genes"}}


def is_trained_on(card: Mapping[str, Any], fingerprint: str) -> bool:
    """Whether a card lists the slide of a fingerprint in its training data."""
    data = card.get("training_data")
    fingerprints = data.get("slide_fingerprints") if isinstance(data, dict) else None
    return isinstance(fingerprints, dict) and fingerprint in fingerprints.values()


def _format_entry(key: Any, value: Any, depth: int = 0) -> list[str]:
    """Format a card entry; objects continue on indented lines, small flat ones on one line."""
    label = str(key).replace("_", " ")
    label = label if depth else label[:1].upper() + label[1:]
    if isinstance(value, dict) and value:
        if key == "read_accounts":  # what was read of each section, on a line
            return [
                _format_line(label, "", depth),
                *(_format_line(name, _format_account(v), depth + 1) for name, v in value.items()),
            ]
        if len(value) <= 4 and all(map(_is_short_scalar, value.values())):
            text = ", ".join(f"{k} {_format_value(v)}" for k, v in value.items())
            return [_format_line(label, text, depth)]
        if depth < 4:
            lines = [_format_line(label, "", depth)]
            for k, v in value.items():
                lines += _format_entry(k, v, depth + 1)
            return lines
    return [_format_line(label, _format_value(value), depth)]


def _format_account(account: Any) -> str:
    if not isinstance(account, dict):
        return _format_value(account)
    return "; ".join(
        f"{str(key).replace('_', ' ')}: {_format_value(value)}" for key, value in account.items()
    )


def _is_short_scalar(value: Any) -> bool:
    return not isinstance(value, dict | list) and len(str(value)) < 20


def _format_value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_format_value(v) for v in value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return "not stated" if value is None else str(value)


def _format_line(label: str, text: str, depth: int = 0) -> str:
    # A card is untrusted text: control characters must not reach a terminal.
    line = f"  {'  ' * depth}{label:<13} {text}".rstrip()
    return "".join(c if c.isprintable() else " " for c in line)
