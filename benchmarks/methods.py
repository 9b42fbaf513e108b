"""The tables of docs/methods.md, from the report of a cross-validation of several methods.

    python benchmarks/bundled_checkpoint.py read --data DATA --weights lite0.safetensors
    python benchmarks/bundled_checkpoint.py crossval --data DATA --gene-text genes.safetensors \
        --methods dkan,triplex,bgtriplex,linear,bleep,mclstexp,stem,genedml,hifusion \
        --seeds 2021,2022 -o docs/reports/her2-breast-methods.json
    python benchmarks/methods.py docs/reports/her2-breast-methods.json --page docs/methods.md

The second command is `napari-dkan crossval --methods` on tiles that are encoded once. The page's
text between the two marks is replaced; without --page it is printed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from napari_dkan.atomic_write import atomic_write
from napari_dkan.model.methods.method_configs import TITLES
from napari_dkan.training.evaluation.paired_differences import format_estimate

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
BASELINES = {
    "ridge": "ridge",
    "pca_ridge": "PCA + ridge (HEST-Bench)",
    "ridge_stain": "ridge on stain statistics",
    "nsl": "NSL",
    "depth_alone": "depth alone (measured)",
    "training_mean": "training mean",
}
SCORES = {
    "depth_partial_pcc": "depth-partial PCC",
    "share_of_attainable": "share of the attainable",
    "deviance_explained": "deviance explained",
    "pcc_all": "PCC-ALL",
    "mse": "MSE",
}


def make_page_part(report: dict[str, Any]) -> str:
    """The tables of scores, differences and costs, and what they allow to say."""
    made, paired = report["made"], report["paired"]
    names = {m: title for m, title in (TITLES | BASELINES).items() if m in report["mean"]}
    sections = ", ".join(made["sections"])
    return "\n".join(
        [
            f"Sections {sections}; seeds {', '.join(map(str, made['seeds']))}; "
            f"{made['settings']['members']} members; means over folds.",
            "",
            *table(
                ("method", *SCORES.values(), "depth-partial PCC by seed"),
                [
                    (title, *(number(report["mean"][m][s]) for s in SCORES), by_seed(report, m))
                    for m, title in names.items()
                ],
            ),
            "",
            f"The ceiling of the depth-partial PCC is {report['mean']['ridge']['ceiling']:.3f}.",
            "",
            "Differences of the depth-partial PCC, with 95 % intervals. "
            f"How: {paired['explained'].partition(': ')[2]}.",
            "",
            *table(
                ("method", "depth-partial PCC", "minus ridge", "minus DKAN"),
                [
                    (
                        title,
                        interval(paired["mean"].get(m)),
                        difference(paired["minus ridge"].get(m)),
                        difference(paired["minus dkan"].get(m)),
                    )
                    for m, title in names.items()
                    if m in paired["mean"]
                ],
            ),
            "",
            conclude(paired, names),
            "",
            *table(
                ("method", "training in s", "numbers in M", "ms a spot"),
                [
                    (
                        title,
                        number(costs["fit_seconds"], 0),
                        "-" if costs["parameters"] is None else f"{costs['parameters'] / 1e6:.2f}",
                        number(costs["ms_per_spot"], 2),
                    )
                    for m, title in names.items()
                    if (costs := report["costs"].get(m))
                ],
            ),
            "",
            "Training: wall time of a fold, choice of epochs and final members. Numbers: "
            "parameters and stored labels of all members, without the tile encoder. ms a spot: "
            "from tile features, a whole section at once. One thread of a shared machine.",
        ]
    )


def conclude(paired: dict[str, Any], names: dict[str, str]) -> str:
    """Sort the methods by whether the interval of their difference to ridge and DKAN contains 0."""
    lines = []
    for reference, title in (("ridge", "ridge"), ("dkan", "DKAN")):
        estimates = {names[m]: e for m, e in paired[f"minus {reference}"].items() if m in names}
        above = [name for name, (_, low, _) in estimates.items() if low > 0]
        below = [name for name, (_, _, high) in estimates.items() if high < 0]
        undecided = [name for name in estimates if name not in above + below]
        lines.append(
            f"- Difference to {title}: above 0 for {listed(above)}; below 0 for {listed(below)}; "
            f"not decided for {listed(undecided)}."
        )
    return "\n".join(lines)


def by_seed(report: dict[str, Any], method: str) -> str:
    seeds = report["seeds"].get(method, {})
    return ", ".join(number(score["depth_partial_pcc"]) for score in seeds.values()) or "-"


def listed(names: list[str]) -> str:
    return ", ".join(names) or "none"


def number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def interval(estimate: list[float | None] | None) -> str:
    if estimate is None or None in estimate:
        return "-"
    return "{:.3f} ({:.3f} to {:.3f})".format(*estimate)


def difference(estimate: list[float | None] | None) -> str:
    return "-" if estimate is None else format_estimate(estimate)


def table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    """Lines of a table, its first column words and the others numbers."""
    rule = "|---|" + "---:|" * (len(heads) - 1)
    return [f"| {' | '.join(heads)} |", rule, *(f"| {' | '.join(row)} |" for row in rows)]


def replace_page_part(page: Path, part: str, begin: str, end: str) -> None:
    """Replace what a page has between two marks."""
    before, _, rest = page.read_text(encoding="utf-8").partition(begin)
    after = rest.partition(end)[2]
    with atomic_write(page) as temporary:
        temporary.write_text(f"{before}{begin}\n{part}\n{end}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("report", type=Path)
    parser.add_argument("--page", type=Path)
    args = parser.parse_args()
    part = make_page_part(json.loads(args.report.read_text(encoding="utf-8")))
    if args.page is None:
        print(part)
        return
    replace_page_part(args.page, part, BEGIN, END)


if __name__ == "__main__":
    main()
