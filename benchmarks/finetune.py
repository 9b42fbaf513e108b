"""What fine-tuning on half of a section is worth on its other half.

    python benchmarks/bundled_checkpoint.py read --data DATA --weights lite0.safetensors
    python benchmarks/finetune.py --data DATA --folds build/folds --thin 0 150 --both-halves \
        -o finetune.json

Each checkpoint of benchmarks/folds.py never saw one of C2 to C5. It is fine-tuned on half of that
section, as measured and with its counts thinned to a median panel total of 150, and scored on the
other half, and on the three sections that it comes from; with --both-halves once more with the
halves exchanged. The bar: beside depth and in squared error not below ridge on the same spots.
Tiles are those that `bundled_checkpoint.py read` left in --cache; a section that is not there is
read from its slide. Seconds are those of the fine-tuning, the tiles being read.

With --why also what a better fit could find: the true errors on the fitted half carried over to
the other half by distance (exponential, of several ranges and noises; the best of them is taken
with the answers in view), and how far depth, which no image shows, explains the error.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_dkan.expression.label_scale import LabelScale
    from napari_dkan.expression.panel import Panel
    from napari_dkan.model import Checkpoint
    from napari_dkan.training.data.prepared_section import EncodedSection

NAMES = ("C2", "C3", "C4", "C5")
METHODS = ("before", "after", "ridge")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folds", type=Path, default=Path("build/folds"))
    parser.add_argument("--only", nargs="*", default=NAMES)
    parser.add_argument("--cache", type=Path, default=Path("build/bundled"))
    parser.add_argument("--both-halves", action="store_true", help="also with them exchanged")
    parser.add_argument("--seeds", nargs="*", type=int, default=[2021])
    parser.add_argument("--thin", nargs="*", type=float, default=[0], help="median totals, 0: none")
    parser.add_argument("--adapt", default="auto")
    parser.add_argument("--parent", type=Path, help="one checkpoint for all, instead of the folds")
    parser.add_argument("--why", action="store_true")
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()

    import torch

    from napari_dkan.expression.count_thinning import thin_section
    from napari_dkan.expression.readers.discovery import read_sections
    from napari_dkan.model import load_checkpoint
    from napari_dkan.training.finetuning import training_section

    torch.set_num_threads(1)
    training_section.CheckpointSectionReader = partial(CachedSectionReader, args.cache)
    rows = []
    for name in args.only:
        parent = args.parent or args.folds / f"without-{name}.safetensors"
        checkpoint = load_checkpoint(parent)
        (section,) = read_sections(args.data, [name])
        others = read_sections(args.data, [n for n in NAMES if n != name])
        for total in args.thin:
            data = thin_section(section, checkpoint.panel, total) if total else section
            seeds = args.seeds
            if args.both_halves:
                seeds = [s for seed in seeds for s in (seed, exchanged(checkpoint, data, seed))]
            for seed in seeds:
                row = {"section": name, "thinned_to": total or None, "seed": seed}
                row |= tuned(checkpoint, data, others, args.adapt, seed)
                if args.why:
                    row["why"] = why(checkpoint, data, seed)
                rows.append(row)
                print(json.dumps(row), flush=True)
                result = {
                    "bar": "depth-partial PCC not below and squared error not above ridge",
                    "met": f"{sum(r['not_below_ridge'] for r in rows)} of {len(rows)}",
                    "processors": os.cpu_count(),
                    "parents": parents(args.parent or args.folds),
                    "runs": rows,
                }
                args.out.write_text(json.dumps(result, indent=1) + "\n")


class CachedSectionReader:
    """Reader of sections whose tile features are taken from the cache where they are there."""

    def __init__(
        self, cache: Path, checkpoint: Checkpoint, weights: Path | None, device: str
    ) -> None:
        from napari_dkan.training.data.section_loading import CheckpointSectionReader

        self._cache, self._encoder = cache, checkpoint.build_tile_encoder(weights)
        self._slides = CheckpointSectionReader(checkpoint, weights, device)

    def read(self, data: AnnData, panel: Panel, scale: LabelScale) -> EncodedSection:
        import torch

        from napari_dkan.expression.label_scale import (
            array_coords_from_section,
            labels_from_section,
        )
        from napari_dkan.training.data.prepared_section import encode_section

        path = self._cache / f"{data.uns['section']}.pickle"
        if not path.is_file():
            return self._slides.read(data, panel, scale)
        stored = pickle.loads(path.read_bytes())
        labels = labels_from_section(data, panel, scale)
        at = array_coords_from_section(data)[labels.rows]
        row_at = {tuple(p): i for i, p in enumerate(stored.positions.tolist())}
        rows = torch.tensor([row_at[tuple(p)] for p in at.tolist()])
        features = stored.frozen_features
        features = replace(
            features,
            neighbor_features=features.neighbor_features[rows],
            target_features=features.target_features[rows],
        )
        section = replace(
            stored,
            labels=torch.from_numpy(labels.values),
            counts=labels.counts,
            dropped_spots=labels.dropped_spots,
            frozen_features=features,
            views=(),
            **{n: getattr(stored, n)[rows] for n in ("positions", "patches", "statistics", "mask")},
        )
        return encode_section(section, self._encoder)


def exchanged(checkpoint: Checkpoint, data: AnnData, seed: int) -> int:
    """A seed that holds out the spots that this one does not."""
    from napari_dkan.training.finetuning.finetune_settings import FinetuneSettings
    from napari_dkan.training.finetuning.hold_out_split import draw_held_out_rows
    from napari_dkan.training.finetuning.training_section import TrainingSectionReader

    at = TrainingSectionReader(checkpoint).read(data, checkpoint.panel).array_coordinates

    def drawn(number: int) -> set[int]:
        (rows,) = draw_held_out_rows([at], FinetuneSettings(share=0.5, seed=number))
        return set(rows.tolist())

    wanted = set(range(len(at))) - drawn(seed)
    return next(number for number in range(10_000) if drawn(number) == wanted)


def parents(path: Path) -> dict[str, str]:
    """SHA-256 of the checkpoints."""
    from napari_dkan.file_hash import compute_sha256

    files = [path] if path.is_file() else sorted(path.glob("without-*.safetensors"))
    return {file.name: compute_sha256(file) for file in files}


def tuned(
    checkpoint: Checkpoint, data: AnnData, others: list[AnnData], adapt: str, seed: int
) -> dict[str, Any]:
    """The figures of one fine-tuning."""
    from napari_dkan.training.finetuning.finetune_checkpoint import finetune_checkpoint
    from napari_dkan.training.finetuning.finetune_settings import AdaptScope, FinetuneSettings

    settings = FinetuneSettings(AdaptScope(adapt), share=0.5, seed=seed)
    load, start, spent = os.getloadavg()[0], time.perf_counter(), time.process_time()
    found = finetune_checkpoint(checkpoint, [data], settings, others=others).report
    seconds, spent = time.perf_counter() - start, time.process_time() - spent

    def figures(name: str) -> dict[str, float]:
        return {m: found["summary"][m][name] for m in METHODS}

    partial, mse = figures("depth_partial_pcc"), figures("mse")
    return {
        "depth_partial": partial,
        "ceiling": found["summary"]["after"]["ceiling"],
        "mse": mse,
        "pcc_all": figures("pcc_all"),
        "depth_alone": found["summary"]["depth_alone"]["pcc_all"],
        "not_below_ridge": partial["after"] >= partial["ridge"] and mse["after"] <= mse["ridge"],
        "genes_better": found["genes_better"],
        "genes_counted": found["genes_counted"],
        **{k: found["spots"][k] for k in ("fit", "held_out", "between")},
        **{k: found[k] for k in ("adapted", "epochs", "best_epoch", "kept", "verdict")},
        "candidates": found["candidates"],
        "others": found["others"],
        "seconds": round(seconds, 1),
        "processor_seconds": round(spent, 1),
        "seconds_of_plain_candidates": plain_seconds(checkpoint, data, seed),
        "load_at_start": round(load, 1),
    }


def plain_seconds(checkpoint: Checkpoint, data: AnnData, seed: int) -> dict[str, float]:
    """Wall and processor seconds of comparing the closed-form candidates, pixels being read."""
    from napari_dkan.training.finetuning.candidates import CandidateSearch, choose_candidate
    from napari_dkan.training.finetuning.finetune_settings import FinetuneSettings
    from napari_dkan.training.finetuning.hold_out_split import split_sections
    from napari_dkan.training.finetuning.training_section import TrainingSectionReader
    from napari_dkan.training.finetuning.tuned_model import compute_spot_tokens

    section = TrainingSectionReader(checkpoint).read(data, checkpoint.panel)
    start, spent = time.perf_counter(), time.process_time()
    split = split_sections([section], FinetuneSettings(share=0.5, seed=seed), 1)
    tokens = compute_spot_tokens(checkpoint.network, [section])
    search = CandidateSearch.of_network(checkpoint.network, [section], tokens, split)
    choose_candidate(search.compare())
    return {
        "wall": round(time.perf_counter() - start, 2),
        "processor": round(time.process_time() - spent, 2),
    }


def why(model: Checkpoint, section: AnnData, seed: int) -> dict[str, float]:
    """Gains in PCC-ALL on the reported half with help that no fit on the other half has."""
    import torch

    from napari_dkan.training.finetuning.finetune_settings import FinetuneSettings
    from napari_dkan.training.finetuning.hold_out_split import split_sections
    from napari_dkan.training.finetuning.training_section import TrainingSectionReader
    from napari_dkan.training.finetuning.tuned_model import compute_spot_tokens
    from napari_dkan.training.metrics import mean_gene_pcc

    lesson = TrainingSectionReader(model).read(section, model.panel)
    parts = split_sections([lesson], FinetuneSettings(share=0.5, seed=seed), 1)
    (fit,), (y,) = parts.train.rows, parts.train.labels
    (out,), (wanted,) = parts.test.rows, parts.test.labels
    with torch.no_grad():
        before = model.network.decode(
            compute_spot_tokens(model.network, [lesson])[0].fused.z
        ).numpy()
    known = mean_gene_pcc(before[out], wanted)
    error = y - before[fit]
    apart = np.linalg.norm(
        lesson.array_coordinates[:, None] - lesson.array_coordinates[None], axis=2
    )
    carried = []
    for reach in (1, 2, 4, 8):
        near = np.exp(-apart / reach)
        for noise in (0.5, 2, 8):
            inner = near[np.ix_(fit, fit)] + noise * np.eye(len(fit))
            change = near[np.ix_(out, fit)] @ np.linalg.solve(inner, error - error.mean(axis=0))
            carried.append(mean_gene_pcc(before[out] + change, wanted) - known)
    panel = section[lesson.section_rows, list(model.panel.symbols)].X
    counts = np.asarray(panel.sum(axis=1)).reshape(-1, 1)
    depth = model.label_scale.smooth(np.log10(counts).astype(np.float32), lesson.array_coordinates)[
        out
    ]
    line = np.hstack([np.ones_like(depth), depth])
    explained = line @ np.linalg.lstsq(line, wanted - before[out], rcond=None)[0]
    return {
        "true_errors_carried_over": round(max(carried), 4),
        "depth_of_every_spot_known": round(
            mean_gene_pcc(before[out] + explained, wanted) - known, 4
        ),
    }


if __name__ == "__main__":
    main()
