"""`napari-dkan crossval`: cross-validate methods and baselines and write a report."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from ..atomic_write import require_output_folder
from ..errors import SpotsError
from ..model.methods.method_configs import CONFIGS
from ..training.train_settings import FoldUnit
from .option_groups import FitOptions, SlideOptions, with_option_groups
from .shared_options import ReportOption, echo_log


@with_option_groups
def run_crossval(
    options: FitOptions,
    slides: SlideOptions,
    out: ReportOption,
    by: Annotated[FoldUnit, typer.Option(help="What is left out together.")] = FoldUnit.section,
    methods: Annotated[
        str, typer.Option(help="Trained methods, such as dkan,triplex, or all of them.")
    ] = "dkan",
    seeds: Annotated[str, typer.Option(help="Each method is trained once with each.")] = "2021",
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs at most.")] = None,
) -> None:
    """Test each section (or patient) once, with the methods and every baseline; write a report."""
    from ..training.evaluation.crossval_report import format_metrics_table
    from ..training.evaluation.folds import make_folds
    from ..training.evaluation.paired_differences import format_paired_differences
    from ..training.train import prepare_training_inputs, write_crossval_report

    names = options.section_names()
    seed_numbers, method_names = _parse_seeds(seeds), _parse_methods(methods)
    require_output_folder(out)  # before an hour of training
    hardware = options.hardware()
    inputs = prepare_training_inputs(
        options.data,
        names,
        options.panel,
        options.settings(seed_numbers[0], epochs),
        choices=slides.choices(),
        check_sections=partial(make_folds, by=by),
        **options.input_arguments(),
    )
    run = options.run_folder(out)
    report = write_crossval_report(
        inputs,
        out,
        run,
        by=by,
        seeds=seed_numbers,
        methods=method_names,
        command=options.format_command_line(
            "crossval",
            "data sections mpp image_name whole_glass by methods panel gene_text preset seeds "
            "epochs set encoder stain precision",
            **slides.command_words(),
            by=by.value,
            methods=methods,
            seeds=seeds,
            epochs=epochs,
        ),
        resume=options.resume,
        hardware=hardware,
        log=echo_log,
        log_epoch=echo_log,
    )
    typer.echo(format_metrics_table(report["mean"]))
    if report["paired"]:
        typer.echo(format_paired_differences(report["paired"]))
    typer.echo(f"written to {out}, the run to {run}")


def _parse_methods(text: str) -> list[str]:
    """Parse comma-separated names of methods; raises SpotsError for a wrong or repeated one."""
    names = list(CONFIGS) if text == "all" else [name.strip() for name in text.split(",")]
    unknown = [n for n in names if n not in CONFIGS]
    if unknown or len(set(names)) != len(names):
        raise SpotsError(
            f"--methods takes different ones of {', '.join(CONFIGS)}, or all; not {text!r:.80}."
        )
    return names


def _parse_seeds(text: str) -> list[int]:
    """Parse comma-separated seeds; raises SpotsError for a wrong or repeated one."""
    try:
        seeds = [int(word) for word in text.split(",")]
    except ValueError:
        raise SpotsError("--seeds takes whole numbers, such as 2021,2022,2023.") from None
    if len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise SpotsError("--seeds takes different numbers of 0 or more; give each once.")
    return seeds
