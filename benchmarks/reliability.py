"""Does the reliability score earn its name? Risk-coverage on held-out sections.

    python benchmarks/reliability.py --data DATA --folds build/folds

Each of C2 to C5 is predicted by the checkpoint of `benchmarks/folds.py` that never saw it. What
may tell an error is tried alone and together; which of it makes the score is chosen on three
sections and measured on the fourth. The error of a spot is that of the depth residuals: prediction
and label are regressed on the depth of the spots gene by gene (docs/method.md). Beside it are told
the part of that error that counting noise does not explain, one minus the correlation over the
genes of both residuals, and the plain error, depth included. Writes docs/reports/reliability.json
and a figure.
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
GAINS = {
    "gain": "error",
    "gain_beyond_noise": "beyond_noise",
    "gain_unlike": "unlike",
    "gain_plain": "mse",
}
RIVAL = "predicted little"  # what anyone could guess by: little expression, little signal
WORTH = 0.01  # of gain that one more part must add
KEPT = (1.0, 0.9, 0.8, 0.7, 0.5)


def together(spots: HeldOut, names: tuple[str, ...]) -> np.ndarray:
    return np.mean([spots.signs[name] for name in names], axis=0)


def choose(sections: list[HeldOut], error: str = "error") -> tuple[str, ...]:
    """Parts added one by one as long as they help, by the mean gain over these sections.

    error : which error of `HeldOut` is to be told.
    """
    chosen: tuple[str, ...] = ()
    best = 0.0
    while len(chosen) < len(CANDIDATES):
        tried = {
            name: float(
                np.mean([gain(together(s, (*chosen, name)), getattr(s, error)) for s in sections])
            )
            for name in CANDIDATES
            if name not in chosen
        }
        name = max(tried, key=lambda n: tried[n])
        if tried[name] < best + WORTH:
            break
        chosen, best = (*chosen, name), tried[name]
    return chosen


def figures(sections: list[HeldOut], risk: Any) -> dict[str, Any]:
    """Of one way to order the spots, over all sections."""
    made: dict[str, Any] = {}
    for key, error in GAINS.items():
        gains = [gain(risk(s), getattr(s, error)) for s in sections]
        made[key] = _rounded({s.name: g for s, g in zip(sections, gains, strict=True)})
        made[f"{key}_mean"] = round(float(np.mean(gains)), 3)
        made[f"{key}_sd"] = round(float(np.std(gains, ddof=1)), 3)
    rho = [np.mean([ranks(risk(s)[part], s.error[part]) for part in strata(s)]) for s in sections]
    made["rho_among_spots_of_like_noise"] = round(float(np.mean(rho)), 3)
    means: dict[str, Any] = {
        "error": lambda s, rows: s.error[rows].mean(),
        "beyond_noise": lambda s, rows: s.beyond_noise[rows].mean(),
        "mse": lambda s, rows: s.mse[rows].mean(),
        "partial_pcc": lambda s, rows: s.partial_pcc(rows),
    }
    made |= {f"{name}_of_the_most_reliable": {} for name in means}
    for share in KEPT:
        rows = [np.argsort(risk(s), kind="stable")[: round(share * len(s.mse))] for s in sections]
        for name, mean in means.items():
            each = [round(float(mean(s, r)), 3) for s, r in zip(sections, rows, strict=True)]
            made[f"{name}_of_the_most_reliable"][f"{share:.0%}"] = each
    return made


def ranks(a: np.ndarray, b: np.ndarray) -> float:
    """Their rank correlation, 0 where one is constant."""
    return 0.0 if np.ptp(a) == 0 else float(spearmanr(a, b)[0])


def strata(spots: HeldOut) -> list[np.ndarray]:
    """Fifths of the spots by how much of their error counting alone explains."""
    return np.array_split(np.argsort(spots.noise), 5)


def nested(sections: list[HeldOut], error: str) -> dict[str, Any]:
    """The parts chosen by an error on three sections, and what they tell of it on the fourth."""
    made: dict[str, Any] = {}
    for out in sections:
        chosen = choose([s for s in sections if s is not out], error)
        told = gain(together(out, chosen), getattr(out, error)) if chosen else 0.0
        made[out.name] = {"chosen_on_the_others": list(chosen), "gain": round(told, 3)}
    gains = [entry["gain"] for entry in made.values()]
    return {
        "chosen_on_all": list(choose(sections, error)),
        "sections": made,
        "gain_mean": round(float(np.mean(gains)), 3),
        "gain_sd": round(float(np.std(gains, ddof=1)), 3),
    }


def report(sections: list[HeldOut]) -> dict[str, Any]:
    risks = np.concatenate([together(s, RISK_TERMS) for s in sections])
    poor = [(s, s.judged.unreliable) for s in sections]
    ratios = {
        error: _rounded(
            {s.name: getattr(s, error)[p].mean() / getattr(s, error).mean() for s, p in poor}, 2
        )
        for error in ("error", "beyond_noise", "mse")
    }
    return {
        "kind": "reliability",
        "spots": {s.name: len(s.mse) for s in sections},
        "error": _rounded({s.name: s.error.mean() for s in sections}),
        "noise": _rounded({s.name: s.noise.mean() for s in sections}),
        "mse": _rounded({s.name: s.mse.mean() for s in sections}),
        "mse_of_training_mean": _rounded({s.name: s.mean_error.mean() for s in sections}),
        "nested": nested(sections, "error"),
        "nested_beyond_noise": nested(sections, "beyond_noise"),
        "nested_plain": nested(sections, "mse"),
        "score": figures(sections, lambda s: -s.judged.score)
        | {
            "unreliable": {s.name: int(p.sum()) for s, p in poor},
            "their_error_over_the_average": ratios["error"],
            "their_mse_over_the_average": ratios["mse"],
            "their_error_beyond_noise_over_the_average": ratios["beyond_noise"],
        },
        "alone": {n: figures(sections, lambda s, n=n: s.signs[n]) for n in (*CANDIDATES, RIVAL)},
        "noise_alone": figures(sections, lambda s: s.noise),
        "oracle": figures(sections, lambda s: s.error),
        "tenths_of_the_risk": np.quantile(risks, DECILES).round(2).tolist(),
    }


def _rounded(values: dict[str, Any], digits: int = 3) -> dict[str, float]:
    return {name: round(float(value), digits) for name, value in values.items()}


def draw(sections: list[HeldOut], file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "napari-dkan"
    figure, axes = plt.subplots(1, len(sections), figsize=(11, 3), sharey=True)
    for axis, s in zip(axes, sections, strict=True):
        share = np.arange(1, len(s.error) + 1) / len(s.error) * 100
        for name, risk, colour in (
            ("reliability score", -s.judged.score, "#b5367a"),
            ("predicted little", s.signs[RIVAL], "#4c72b0"),
            ("counting noise, measured", s.noise, "#55a868"),
            ("knowing the errors", s.error, "#999999"),
        ):
            values = curve(risk, s.error)
            first = len(values) // 20  # a mean of few spots says nothing
            axis.plot(share[first:], values[first:], label=name, color=colour)
        axis.axhline(s.error.mean(), color="black", ls=":", lw=1, label="random")
        axis.set_title(f"{s.name}, never seen", fontsize=10)
        axis.set_xlabel("% of spots kept")
        axis.invert_xaxis()
    axes[0].set_ylabel("squared error of depth residuals")
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
    print(f"{'':18}{'gain':>7}{'sd':>6}{'beyond':>8}{'1-r':>7}{'like':>6}{'half':>6}{'plain':>7}")
    rows = {"score": found["score"], **found["alone"], "noise": found["noise_alone"]}
    for name, f in {**rows, "oracle": found["oracle"]}.items():
        half = np.mean(f["partial_pcc_of_the_most_reliable"]["50%"])
        print(
            f"{name:18}{f['gain_mean']:7.2f}{f['gain_sd']:6.2f}"
            f"{f['gain_beyond_noise_mean']:8.2f}{f['gain_unlike_mean']:7.2f}"
            f"{f['rho_among_spots_of_like_noise']:6.2f}{half:6.3f}{f['gain_plain_mean']:7.2f}"
        )
    print("nested", json.dumps(found["nested"]))
    print("nested, beyond noise", json.dumps(found["nested_beyond_noise"]))
    print("nested, plain", json.dumps(found["nested_plain"]))
    print("unreliable", json.dumps({k: v for k, v in found["score"].items() if "their" in k}))
    print("tenths of the risk", found["tenths_of_the_risk"])


if __name__ == "__main__":
    main()
