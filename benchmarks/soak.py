"""Predict, cancel, change gene, change checkpoint, again and again in one real window.

    tools/with-screen.sh python benchmarks/soak.py [--cycles 1000]

A drawn region on the demo's section is predicted in every cycle and its map deleted again; every
second run is cancelled at a random moment (seeded), the gene changes each time, the checkpoint
every tenth. Memory, threads, open files and layers are read every 50 cycles. After the first 200
none of them may grow: memory by 5 % at most, the others not at all.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import tempfile
import threading
import time

import psutil

EVERY, WARM_UP, GROWTH = 50, 200, 1.05


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--cycles", type=int, default=1000)
    cycles = options.parse_args().cycles
    with tempfile.TemporaryDirectory() as cache:
        os.environ["NAPARI_DKAN_CACHE"] = cache
        samples = soak(cycles)
    first = next(s for s in samples if s["cycle"] >= min(WARM_UP, cycles // 2))
    last = samples[-1]
    grown = {name: last[name] - first[name] for name in ("threads", "files", "layers")}
    ratio = last["rss_mb"] / first["rss_mb"]
    kept = ratio <= GROWTH and grown["layers"] == 0 and grown["files"] <= 0 >= grown["threads"]
    print(json.dumps({"memory": round(ratio, 4), **grown, "kept": kept}))
    return 0 if kept else 1


def soak(cycles: int) -> list[dict[str, float]]:
    from napari_dkan.samples import find_bundled_checkpoint
    from napari_dkan.viewer import demo
    from napari_dkan.viewer.jobs.target_from_layers import target_from_layers

    viewer, panel, _ = demo.open_section()
    session, chance = panel.session, random.Random(2021)
    place = demo.fit_view_to_tissue(viewer, panel).representative_point()
    demo.wait_until(lambda: not panel.prefetcher.busy, "getting ready")
    session.change_settings(prefetch=False)  # thousands of tiles around the view are another matter
    demo.draw_region(panel, place.x, place.y, 600)
    models = [find_bundled_checkpoint(name) for name in ("synthetic", "her2-breast")]
    plan = panel.target_box.regions_layer()
    samples, began = [], time.perf_counter()
    for cycle in range(1, cycles + 1):
        demo.wait_until(lambda: target_from_layers(session, None, plan) is not None, "the plan")
        panel.target_box.start_prediction()
        if cycle % 2:
            demo.process_events(chance.uniform(0, 0.3))
            panel.target_box.cancel_button.click()
        session.step_gene(1)
        demo.wait_until(
            lambda: not panel.prediction_jobs.busy and not panel.gene_decode_job.busy, "the map"
        )
        for overlay in list(session.overlays):
            viewer.layers.remove(overlay.layer)
        if cycle % 10 == 0:
            wanted = models[cycle // 10 % 2]
            panel.model_box.load(wanted)
            demo.wait_until(lambda w=wanted: session.checkpoint.path == w, "the checkpoint")
            demo.wait_until(lambda: not panel.prefetcher.busy, "getting ready")
        if cycle % EVERY == 0:
            samples.append(sample(cycle, viewer, time.perf_counter() - began))
            print(json.dumps(samples[-1]), flush=True)
    panel.shut_down()
    viewer.close()
    return samples


def sample(cycle: int, viewer, seconds: float) -> dict[str, float]:
    gc.collect()
    process = psutil.Process()
    return {
        "cycle": cycle,
        "seconds": round(seconds, 1),
        "rss_mb": round(process.memory_info().rss / 2**20, 1),
        "threads": process.num_threads(),
        "python_threads": threading.active_count(),
        "files": process.num_fds(),
        "layers": len(viewer.layers),
    }


if __name__ == "__main__":
    raise SystemExit(main())
