"""How long "why here" takes after a click, and after a change of gene, with the bundled checkpoint.

Spots of C3 whose numbers are already shown; two CPU cores, one of which is left to the window.
"""

from __future__ import annotations

import argparse
import os
import time

import numpy as np
from section import best_section, empty_cache
from verdict import Figure, print_table
from why_maps import drained

WITHIN_MS = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spots", type=int, default=50)
    count = parser.parse_args().spots
    empty_cache("why")
    from napari_dkan.inference.device import reserve_cpu_core
    from napari_dkan.inference.occlusion import attribute_gene, occlude_spot
    from napari_dkan.inference.predict import find_tissue_region
    from napari_dkan.inference.predictor import Predictor
    from napari_dkan.inference.spot_inputs import gather_spot_inputs
    from napari_dkan.inference.target import Target, TargetKind
    from napari_dkan.model import load_checkpoint
    from napari_dkan.slide import open_slide
    from napari_dkan.spatial.spots import Spots

    section = best_section()
    reserve_cpu_core()
    spent: dict[str, list[float]] = {"click": [], "gene": []}
    busy: dict[str, list[float]] = {"click": [], "gene": []}
    with open_slide(section.image) as slide:
        checkpoint = load_checkpoint(section.checkpoint)
        tissue = find_tissue_region(slide, section.mpp)
        predictor = Predictor(slide, checkpoint, section.mpp, tissue)
        drained(predictor.trace_for_latency())
        x0, y0, x1, y1 = tissue.bounds
        for x, y in np.random.default_rng(0).uniform((x0, y0), (x1, y1), (count + 1, 2)):
            drained(predictor.stream(Target(TargetKind.POINTS, Spots(np.array([[x, y]])))))
            start, cpu = time.perf_counter(), time.process_time()
            made = occlude_spot(
                predictor.prediction_context,
                drained(gather_spot_inputs(predictor.prediction_context, x, y)),
            )
            attribute_gene(predictor.prediction_context, made, 0)
            middle, half = time.perf_counter(), time.process_time()
            attribute_gene(predictor.prediction_context, made, 1)
            spent["click"].append(1000 * (middle - start))
            spent["gene"].append(1000 * (time.perf_counter() - middle))
            busy["click"].append(1000 * (half - cpu))
            busy["gene"].append(1000 * (time.process_time() - half))
    figures = []
    for what, values in spent.items():
        median, p95 = np.percentile(values[1:], (50, 95))  # the first one warms up
        core = np.median(busy[what][1:])  # what it takes where nothing else runs
        figure = f"{median:.0f} ms (p95 {p95:.0f}; {core:.0f} ms of a core)"
        where = f"{section.name}, median of {count}, load {os.getloadavg()[0]:.1f}"
        target = f"<= {WITHIN_MS} ms"
        figures.append(
            Figure(f"why here, new {what}", where, target, figure, bool(median <= WITHIN_MS))
        )
    print_table(figures)


if __name__ == "__main__":
    main()
