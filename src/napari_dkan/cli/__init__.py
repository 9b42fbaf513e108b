"""The command line: the jobs of the panel without a window."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..errors import DkanError
from .batch_command import run_batch
from .cache_command import cache_app
from .checkpoint_commands import run_convert, run_info
from .crossval_command import run_crossval
from .doctor_command import run_doctor
from .encoders_command import encoders_app
from .evaluate_command import run_evaluate, run_zeroshot
from .export_command import run_export
from .finetune_command import run_finetune
from .genes_command import genes_app
from .predict_command import run_predict
from .report_command import run_report
from .train_command import run_reference, run_train
from .verbose_option import with_verbose_option

app = typer.Typer(
    help="Predict spatial gene expression from H&E with DKAN.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


app.command("predict")(with_verbose_option(run_predict))
app.command("convert")(run_convert)
app.command("batch")(with_verbose_option(run_batch))
app.command("doctor")(run_doctor)
app.command("train")(with_verbose_option(run_train))
app.command("crossval")(with_verbose_option(run_crossval))
app.command("evaluate")(with_verbose_option(run_evaluate))
app.command("export")(run_export)
app.command("report")(with_verbose_option(run_report))
app.command("zeroshot")(with_verbose_option(run_zeroshot))
app.command("reference")(with_verbose_option(run_reference))
app.command("finetune")(with_verbose_option(run_finetune))
app.add_typer(genes_app, name="genes")
app.add_typer(cache_app, name="cache")
app.add_typer(encoders_app, name="encoders")
app.command("info")(run_info)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the screenshot and the result go.")] = Path(
        "build/demo"
    ),
    drive: Annotated[bool, typer.Option("--drive", help="Do it all by itself.")] = False,
) -> None:
    """Open napari on a section with a checkpoint; without a display, drive it and save."""
    from ..viewer.demo import run_demo

    run_demo(out, drive)


def main() -> None:
    """Run the command line; a DkanError is one sentence on stderr and exit code 2."""
    try:
        app()
    except DkanError as error:
        print(f"napari-dkan: {error}", file=sys.stderr)
        sys.exit(2)
