"""`napari-dkan zeroshot`: how well genes are predicted from their text alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import OutputError
from .options import DataOption, PanelOption, SettingChangesOption, parse_section_names


def zeroshot_command(
    data: DataOption,
    gene_text: Annotated[
        Path, typer.Option(help="Gene file of `genes build`, or .npz.", show_default=False)
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The report (.json).", show_default=False)
    ],
    sections: Annotated[
        str | None, typer.Option(help="Such as C2,C3,C4,C5; default all there are.")
    ] = None,
    panel: PanelOption = None,
    held_out: Annotated[int, typer.Option(min=2, help="Genes left out of training.")] = 25,
    draws: Annotated[int, typer.Option(min=1, help="Different sets of such genes.")] = 3,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of every network.")] = 40,
    set_: SettingChangesOption = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 2021,
) -> None:
    """Leave genes out of training and predict them by their description.

    The report says whether their own text beats another gene's; its summary goes on a card.
    """
    from .gene_text import read_gene_text_embeddings
    from .inputs import resolve_panel
    from .loading import load_sections, adapt_settings_to_sections
    from .presets import apply_setting_changes
    from .run_folder import write_json
    from .settings import TrainSettings
    from .zeroshot import evaluate_zero_shot

    names = parse_section_names(sections)
    if not out.parent.is_dir():  # now, and not after an hour of training
        raise OutputError(f"{out.parent} is not a folder; make it, or write elsewhere.")

    def log(line: str) -> None:
        typer.echo(line, err=True)

    # one network a fold: a mean of several would lift text and shuffled text alike
    settings = apply_setting_changes(TrainSettings(epochs=epochs, seed=seed, members=1), set_ or ())
    genes = resolve_panel(data, panel)
    text = read_gene_text_embeddings(gene_text, genes)
    prepared = load_sections(data, names, genes, settings, log=log)
    settings = adapt_settings_to_sections(settings, prepared)
    report = evaluate_zero_shot(
        prepared, genes, text, settings, held_out=held_out, draws=draws, log=log
    )
    write_json(out, report)
    verdict = "beats" if report["beats_shuffled"] else "does not beat"
    typer.echo(
        f"text {verdict} shuffled text: PCC {report['pcc']:.3f}, shuffled "
        f"{report['shuffled_pcc']:.3f} ({2 * report['standard_error']:.3f} is two standard "
        f"errors), panel mean {report['panel_mean_pcc']:.3f}; written to {out}"
    )
