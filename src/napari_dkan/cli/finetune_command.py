"""`napari-dkan finetune`: fine-tune a checkpoint on measured sections."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from ..atomic_write import require_output_folder, write_json
from ..errors import DkanError
from ..training.finetuning.finetune_settings import AdaptScope, FinetuneSettings, HoldOutUnit
from .option_groups import SlideOptions, with_option_groups
from .shared_options import (
    CheckpointOption,
    DeviceOption,
    EncoderWeightsOption,
    FewGenesOption,
    SectionsOption,
    checkpoint_word,
    format_command_line,
    parse_section_names,
    resolve_checkpoint,
)

SMALL_NETWORK_DIM = 128  # width up to which one thread is fastest


@with_option_groups
def run_finetune(
    data: Annotated[
        list[Path],
        typer.Option(
            help="Folder with sections in any layout that `train` knows, or an h5ad; may be "
            "given several times.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The checkpoint to write.", show_default=False)
    ],
    slides: SlideOptions,
    checkpoint: CheckpointOption = "bundled",
    sections: SectionsOption = None,
    adapt: Annotated[
        AdaptScope, typer.Option(help="What may change; auto goes by the number of spots.")
    ] = AdaptScope.auto,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs at most.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Seconds at most.")] = None,
    hold_out: Annotated[
        HoldOutUnit, typer.Option(help="What is held out and reported on.")
    ] = HoldOutUnit.blocks,
    share: Annotated[float, typer.Option(help="Share of the spots that is held out.")] = 0.25,
    seed: Annotated[int, typer.Option(help="Of the split and the fit.")] = 2021,
    lr: Annotated[float | None, typer.Option(help="Learning rate; default by --adapt.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write the figures to this .json.")] = None,
    others: Annotated[
        str | None,
        typer.Option(help="Sections of --data to measure forgetting on; they are not trained on."),
    ] = None,
    new_genes: Annotated[
        Path | None,
        typer.Option(help="Gene file of `genes build`: its genes join where they are measured."),
    ] = None,
    title: Annotated[str, typer.Option(help="Title on the checkpoint's card.")] = "",
    encoder_weights: EncoderWeightsOption = None,
    few_genes: FewGenesOption = False,
    device: DeviceOption = None,
    events: Annotated[
        bool, typer.Option(help="One JSON object a line, and commands on stdin.")
    ] = False,
) -> None:
    """Teach a checkpoint measured sections, and tell whether it got better on held-out spots."""
    from ..training.finetuning.tuning_protocol import (
        FinetuneControl,
        FinetuneEvent,
        FinetuneFailed,
        FinetuneFinished,
        TuningProtocol,
    )

    def finetune(
        on_event: Callable[[FinetuneEvent], None], control: FinetuneControl
    ) -> FinetuneFinished:
        import torch

        from ..model import load_checkpoint, save_checkpoint
        from ..training.finetuning.finetune_checkpoint import finetune_checkpoint
        from ..training.finetuning.training_section import read_finetune_sections

        settings = FinetuneSettings(adapt, epochs, seconds, hold_out, share, seed, lr)
        for path in (out, *([] if report is None else [report])):
            require_output_folder(path)
        names, other_names = parse_section_names(sections), parse_section_names(others) or []
        model = load_checkpoint(resolve_checkpoint(checkpoint))
        if model.network.config.dim <= SMALL_NETWORK_DIM:
            torch.set_num_threads(1)  # in such short steps threads wait for each other
        training_data, other_data = read_finetune_sections(
            data, names, other_names, slides.choices()
        )
        command = format_command_line(
            "finetune",
            checkpoint=checkpoint_word(checkpoint),
            data=[d.resolve().name for d in data],
            sections=sections,
            **slides.command_words(),
            adapt=adapt.value,
            epochs=epochs,
            seconds=seconds,
            hold_out=hold_out.value,
            share=share,
            seed=seed,
            lr=lr,
            others=others,
            new_genes=new_genes,
            few_genes=few_genes,
            device=device,
        )
        tuned = finetune_checkpoint(
            model,
            training_data,
            settings,
            on_event,
            control,
            others=other_data,
            new_genes=new_genes,
            encoder_weights=encoder_weights,
            few_genes=few_genes,
            device=device,
            command=command,
            title=title,
        )
        saved = protocol.save_with_retry(tuned.checkpoint, out, save_checkpoint)
        if report is not None:
            write_json(report, tuned.report)
        return FinetuneFinished(tuned.is_better, tuned.verdict, str(saved), tuned.report)

    protocol = TuningProtocol(events, typer.echo)
    try:
        finished = finetune(protocol.send_event, protocol.control)
    except DkanError as error:
        if events:
            protocol.send_event(FinetuneFailed(str(error)))
        raise
    protocol.send_event(finished)
