"""`napari-dkan zeroshot`: how well genes are predicted from their text alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import OutputError
from .options import Data, Panel, Set, names_of


def zeroshot_command(
    data: Data,
    gene_text: Annotated[
        Path, typer.Option(help="Gene file of `genes build`, or .npz.", show_default=False)
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The report (.json).", show_default=False)
    ],
    sections: Annotated[
        str | None, typer.Option(help="Such as C2,C3,C4,C5; default all there are.")
    ] = None,
    panel: Panel = None,
    held_out: Annotated[int, typer.Option(min=2, help="Genes left out of training.")] = 25,
    draws: Annotated[int, typer.Option(min=1, help="Different sets of such genes.")] = 3,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of every network.")] = 40,
    set_: Set = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 2021,
) -> None:
    """Leave genes out of training and predict them by their description.

    The report says whether their own text beats another gene's; its summary goes on a card.
    """
    from .gene_text import read_panel_text
    from .inputs import panel_of
    from .loading import load_sections, settings_for
    from .presets import changed
    from .run_folder import write_json
    from .settings import Settings
    from .zeroshot import measure_zero_shot

    names = names_of(sections)
    if not out.parent.is_dir():  # now, and not after an hour of training
        raise OutputError(f"{out.parent} is not a folder; make it, or write elsewhere.")

    def log(line: str) -> None:
        typer.echo(line, err=True)

    # one network a fold: a mean of several would lift text and shuffled text alike
    settings = changed(Settings(epochs=epochs, seed=seed, members=1), set_ or ())
    genes = panel_of(data, panel)
    text = read_panel_text(gene_text, genes)
    prepared = load_sections(data, names, genes, settings, log=log)
    settings = settings_for(settings, prepared)
    report = measure_zero_shot(
        prepared, genes, text, settings, held_out=held_out, draws=draws, log=log
    )
    write_json(out, report)
    verdict = "beats" if report["beats_shuffled"] else "does not beat"
    typer.echo(
        f"text {verdict} shuffled text: PCC {report['pcc']:.3f}, shuffled "
        f"{report['shuffled_pcc']:.3f} ({2 * report['standard_error']:.3f} is two standard "
        f"errors), panel mean {report['panel_mean_pcc']:.3f}; written to {out}"
    )
