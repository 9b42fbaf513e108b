"""Does the reliability score earn its name? Risk-coverage on held-out sections.

    python benchmarks/reliability.py --data DATA --folds build/folds

Each of C2 to C5 is predicted by the checkpoint of `benchmarks/folds.py` that never saw it. What
may tell an error is tried alone and together; which of it makes the score is chosen on three
sections and measured on the fourth. Writes docs/reports/reliability.json and a figure.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from held_out import SECTIONS, HeldOut, checkpoint_without, curve, gain, held_out
from scipy.stats import spearmanr

from napari_dkan.quality.reliability import DECILES, RISK_TERMS
from napari_dkan.training.run_provenance import collect_provenance

CANDIDATES = (
    "distance",
    "members",
    "heads",
    "blur",
    "little tissue",
    "pen",
    "dark",
    "stain",
)
RIVAL = "predicted little"  # what anyone could guess by: little expression, little signal
WORTH = 0.01  # of gain that one more part must add
KEPT = (1.0, 0.9, 0.8, 0.7, 0.5)


def together(spots: HeldOut, names: tuple[str, ...]) -> np.ndarray:
    return np.mean([spots.signs[name] for name in names], axis=0)


def choose(sections: list[HeldOut]) -> tuple[str, ...]:
    """Parts added one by one as long as they help, by the mean gain over these sections."""
    chosen: tuple[str, ...] = ()
    best = 0.0
    while True:
        tried = {
            name: float(np.mean([gain(together(s, (*chosen, name)), s.mse) for s in sections]))
            for name in CANDIDATES
            if name not in chosen
        }
        name = max(tried, key=lambda n: tried[n])
        if tried[name] < best + WORTH:
            return chosen
        chosen, best = (*chosen, name), tried[name]


def figures(sections: list[HeldOut], risk: Any) -> dict[str, Any]:
    """Of one way to order the spots, over all sections."""
    mse = [gain(risk(s), s.mse) for s in sections]
    unlike = [gain(risk(s), s.unlike) for s in sections]
    beside = [gain(risk(s), s.mse_beside_depth) for s in sections]
    rho = [np.mean([ranks(risk(s)[part], s.mse[part]) for part in strata(s)]) for s in sections]
    kept = {}
    for share in KEPT:
        each = [curve(risk(s), s.mse)[max(1, round(share * len(s.mse))) - 1] for s in sections]
        kept[f"{share:.0%}"] = [round(float(e), 3) for e in each]
    names = [s.name for s in sections]
    return {
        "gain_mse": dict(zip(names, np.round(mse, 3).tolist(), strict=True)),
        "gain_mse_mean": round(float(np.mean(mse)), 3),
        "gain_mse_sd": round(float(np.std(mse, ddof=1)), 3),
        "gain_unlike": dict(zip(names, np.round(unlike, 3).tolist(), strict=True)),
        "gain_unlike_mean": round(float(np.mean(unlike)), 3),
        "gain_beside_depth": dict(zip(names, np.round(beside, 3).tolist(), strict=True)),
        "gain_beside_depth_mean": round(float(np.mean(beside)), 3),
        "rho_among_spots_of_like_signal": round(float(np.mean(rho)), 3),
        "mse_of_the_most_reliable": kept,
    }


def ranks(a: np.ndarray, b: np.ndarray) -> float:
    """Their rank correlation, 0 where one is constant."""
    return 0.0 if np.ptp(a) == 0 else float(spearmanr(a, b)[0])


def strata(spots: HeldOut) -> list[np.ndarray]:
    """Fifths of the spots by how much was measured in them on the whole."""
    return np.array_split(np.argsort(spots.total), 5)


def report(sections: list[HeldOut]) -> dict[str, Any]:
    nested = {}
    for out in sections:
        chosen = choose([s for s in sections if s is not out])
        nested[out.name] = {
            "chosen_on_the_others": list(chosen),
            "gain_mse": round(gain(together(out, chosen), out.mse), 3),
            "gain_unlike": round(gain(together(out, chosen), out.unlike), 3),
        }
    risks = np.concatenate([together(s, RISK_TERMS) for s in sections])
    poor = [s.judged.unreliable for s in sections]
    ratio = [float(s.mse[p].mean() / s.mse.mean()) for s, p in zip(sections, poor, strict=True)]
    return {
        "kind": "reliability",
        "spots": {s.name: len(s.mse) for s in sections},
        "mse": {s.name: round(float(s.mse.mean()), 3) for s in sections},
        "mse_of_training_mean": {s.name: round(float(s.mean_error.mean()), 3) for s in sections},
        "chosen_on_all": list(choose(sections)),
        "nested": nested,
        "nested_gain_mse_mean": round(float(np.mean([n["gain_mse"] for n in nested.values()])), 3),
        "nested_gain_mse_sd": round(
            float(np.std([n["gain_mse"] for n in nested.values()], ddof=1)), 3
        ),
        "score": figures(sections, lambda s: -s.judged.score)
        | {
            "unreliable": {s.name: int(p.sum()) for s, p in zip(sections, poor, strict=True)},
            "their_error_over_the_average": dict(
                zip([s.name for s in sections], np.round(ratio, 2).tolist(), strict=True)
            ),
        },
        "alone": {n: figures(sections, lambda s, n=n: s.signs[n]) for n in (*CANDIDATES, RIVAL)},
        "oracle": {
            "mse_of_the_most_reliable": figures(sections, lambda s: s.mse)[
                "mse_of_the_most_reliable"
            ]
        },
        "tenths_of_the_risk": np.quantile(risks, DECILES).round(2).tolist(),
    }


def draw(sections: list[HeldOut], file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "napari-dkan"
    figure, axes = plt.subplots(1, len(sections), figsize=(11, 3), sharey=True)
    for axis, s in zip(axes, sections, strict=True):
        share = np.arange(1, len(s.mse) + 1) / len(s.mse) * 100
        for name, risk, colour in (
            ("reliability score", -s.judged.score, "#b5367a"),
            ("predicted little", s.signs[RIVAL], "#4c72b0"),
            ("knowing the errors", s.mse, "#999999"),
        ):
            values = curve(risk, s.mse)
            first = len(values) // 20  # a mean of few spots says nothing
            axis.plot(share[first:], values[first:], label=name, color=colour)
        axis.axhline(s.mse.mean(), color="black", ls=":", lw=1, label="random")
        axis.set_title(f"{s.name}, never seen", fontsize=10)
        axis.set_xlabel("% of spots kept")
        axis.invert_xaxis()
    axes[0].set_ylabel("mean squared error")
    axes[0].set_ylim(bottom=0)
    axes[0].legend(fontsize=7, frameon=False, loc="lower left")
    figure.tight_layout()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folds", type=Path, default=Path("build/folds"))
    parser.add_argument("--sections", nargs="*", default=SECTIONS)
    parser.add_argument("-o", "--out", type=Path, default=Path("docs/reports/reliability.json"))
    parser.add_argument("--figure", type=Path, default=Path("docs/images/reliability.svg"))
    args = parser.parse_args()
    sections = [
        held_out(checkpoint_without(args.folds, name, args.data), args.data, name)
        for name in args.sections
    ]
    found = report(sections)
    found["made"] = collect_provenance(
        "python benchmarks/reliability.py --data DATA --folds build/folds"
    )
    args.out.write_text(json.dumps(found, indent=1) + "\n")
    draw(sections, args.figure)
    print(f"{'':18}{'gain':>7}{'sd':>6}{'1-r':>7}{'like':>6}{'depth out':>10}")
    for name, f in {"score": found["score"], **found["alone"]}.items():
        print(
            f"{name:18}{f['gain_mse_mean']:7.2f}{f['gain_mse_sd']:6.2f}"
            f"{f['gain_unlike_mean']:7.2f}{f['rho_among_spots_of_like_signal']:6.2f}"
            f"{f['gain_beside_depth_mean']:10.2f}"
        )
    print("nested", json.dumps(found["nested"]), found["nested_gain_mse_mean"])
    print("tenths of the risk", found["tenths_of_the_risk"])


if __name__ == "__main__":
    main()
