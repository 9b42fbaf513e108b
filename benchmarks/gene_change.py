"""From a change of gene to the drawn frame, on a map of 20,000 tiles with the bundled checkpoint.

The tiles' tokens are drawn at random: decoding and drawing do not care. The clock starts where
the gene box hands over the gene, and stops when OpenGL has drawn a frame with the new gene's
values in it.

decoded : the gene's values are there, and only have to be drawn.
first time : they are not, so the gene is decoded for all tiles; other genes wait.

Beside them stand a frame in which nothing has changed, which no change can beat, and what of a
decoded change the window spends before it gets to drawing.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from ready_window import Frames, random_map, ready_window, settle
from verdict import Figure, print_table

COLUMNS, ROWS = 160, 125
DECODED_MS, FIRST_MS = 60, 1000
CHANGES, SMALL = 100, 25
FIRST, FIRST_SMALL = 20, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help=f"{SMALL} changes of gene")
    small = parser.parse_args().small
    viewer, panel, title = ready_window()
    session, frames = panel.session, Frames(viewer)
    overlay = random_map(panel, COLUMNS, ROWS)
    prediction, checkpoint = overlay.prediction, session.checkpoint
    assert checkpoint is not None
    draw = np.random.default_rng(0)
    settle(panel)
    grown = 0  # frames drawn when values came last

    def grew(_: object) -> None:
        nonlocal grown
        grown = frames.count

    session.overlay_updated.connect(grew)

    handled: list[float] = []
    busy: list[float] = []  # processor time of the window's thread

    def changed(symbol: str) -> float:
        nonlocal grown
        column = checkpoint.panel.row(symbol)
        grown = frames.count
        start, worked = time.perf_counter(), time.thread_time()
        session.set_gene(symbol)
        handled.append(1000 * (time.perf_counter() - start))
        frames.wait(
            lambda: not len(prediction.find_undecoded_rows([column])) and frames.count > grown
        )
        spent = 1000 * (time.perf_counter() - start)
        busy.append(1000 * (time.thread_time() - worked))
        settle(panel, 0.1)
        return spent

    symbols = list(checkpoint.panel.symbols)
    genes = [str(g) for g in draw.permutation([s for s in symbols if s != session.gene])]
    rounds = SMALL if small else CHANGES
    worked = time.thread_time()
    redrawn = [1000 * frames.redraw() for _ in range(rounds)]
    unchanged = 1000 * (time.thread_time() - worked) / rounds
    decoded = [changed(genes[i % len(genes)]) for i in range(rounds)]
    handled, before_drawing = [], handled
    over = np.median(busy) - unchanged
    print(
        f"\nprocessor: {unchanged:.1f} ms an unchanged frame, {over:.1f} ms more a change of gene"
    )
    first = []
    for symbol in genes[-(FIRST_SMALL if small else FIRST) :]:
        if symbol == session.gene:
            continue
        prediction.values[:, checkpoint.panel.row(symbol)] = np.nan
        panel.gene_decode_job._all_decoded = False  # as if it had never been decoded
        first.append(changed(symbol))
    print(f"\n{title}, {checkpoint.title}: {len(prediction.values):,} tiles\n")
    print("| change of gene | median, ms | p95, ms | most, ms |\n|---|---|---|---|")
    figures = []
    for name, spent, target in (
        ("a frame without a change", redrawn, None),
        ("decoded, before drawing", before_drawing, None),
        ("decoded", decoded, DECODED_MS),
        ("first time", first, FIRST_MS),
    ):
        median, p95 = np.percentile(spent, (50, 95))
        print(f"| {name} | {median:.0f} | {p95:.0f} | {max(spent):.0f} |")
        if target is None:
            continue
        what, where = f"gene change on 20,000 tiles, {name}", f"real window, p95 of {len(spent)}"
        figure = f"{p95:.0f} ms (median {median:.0f})"
        figures.append(Figure(what, where, f"<= {target} ms", figure, bool(p95 <= target)))
    print_table(figures)
    panel.shut_down()
    viewer.close()


if __name__ == "__main__":
    main()
