"""Means of what benchmarks/why.py measured, with intervals from drawing spots again."""

from __future__ import annotations

from typing import Any

import numpy as np

Rows = list[dict[str, Any]]
FIGURES = (
    *("gain", "plain gain", "change", "plain change", "error", "plain error"),
    *("rank", "rank of sizes", "depth"),
)


def summary(rows: Rows) -> Rows:
    """For each part, covering and map: mean, 95 % interval, wins and means of the sections."""
    made: Rows = []
    for key in dict.fromkeys((r["part"], r["paint"], r["map"]) for r in rows):
        mine = [r for r in rows if (r["part"], r["paint"], r["map"]) == key]
        entry: dict[str, Any] = dict(zip(("part", "paint", "map"), key, strict=True))
        for figure in FIGURES:
            having = [r for r in mine if figure in r and np.isfinite(r[figure])]
            if having:
                entry[figure] = _figure(having, figure)
        for kind in ("", "plain "):
            if f"{kind}all" in mine[0]:
                sizes = [abs(r[f"{kind}all"]) for r in mine]
                entry[f"{kind}all covered"] = round(float(np.mean(sizes)), 4)
        made.append(entry)
    return made


def _figure(rows: Rows, figure: str) -> dict[str, Any]:
    spots: dict[tuple[str, int], list[float]] = {}
    for row in rows:
        spots.setdefault((row["section"], row["spot"]), []).append(row[figure])
    means = np.array([np.mean(v) for v in spots.values()])
    draws = np.random.default_rng(0).integers(len(means), size=(2000, len(means)))
    low, high = np.percentile(means[draws].mean(axis=1), (2.5, 97.5))
    values = np.array([r[figure] for r in rows])
    names = sorted({r["section"] for r in rows})
    return {
        "mean": round(float(means.mean()), 4),
        "low": round(float(low), 4),
        "high": round(float(high), 4),
        "above zero": round(float((values > 0).mean()), 3),
        "curves": len(values),
        "spots": len(means),
        "sections": {
            n: round(float(np.mean([r[figure] for r in rows if r["section"] == n])), 4)
            for n in names
        },
    }


def mean_curves(rows: Rows) -> Rows:
    """Mean change of the prediction along each signed map, from either end."""
    made: Rows = []
    having = [r for r in rows if "up" in r]
    for part, name in dict.fromkeys((r["part"], r["map"]) for r in having):
        mine = [r for r in having if (r["part"], r["map"]) == (part, name)]
        length = min(len(r["up"]) for r in mine)  # fewer neighbours at the edge of the slide
        entry: dict[str, Any] = {"part": part, "map": name}
        for end in ("down", "up"):
            mean = np.mean([r[end][:length] for r in mine], axis=0)
            entry[end] = np.round(mean, 4).tolist()
        made.append(entry)
    return made


def table(entries: Rows) -> str:
    lines = []
    for figure in FIGURES:
        having = [e for e in entries if figure in e]
        names = sorted({n for e in having for n in e[figure]["sections"]})
        if not having:
            continue
        lines += [
            f"\n| part | covered by | map | {figure} (95 %) | above 0 | {' | '.join(names)} | n |",
            "|---" * (6 + len(names)) + "|",
        ]
        for e in having:
            f = e[figure]
            each = " | ".join(f"{f['sections'].get(n, float('nan')):.3f}" for n in names)
            lines.append(
                f"| {e['part']} | {e['paint']} | {e['map']} | {f['mean']:.3f} ({f['low']:.3f} to "
                f"{f['high']:.3f}) | {f['above zero']:.0%} | {each} | {f['curves']} |"
            )
    return "\n".join(lines)
