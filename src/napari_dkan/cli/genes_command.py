"""`napari-dkan genes`: build and show gene files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..atomic_write import write_json
from ..batch.slide_job import split_names
from ..errors import GeneError

if TYPE_CHECKING:
    from ..expression.knowledge.gene_records import GeneTable
    from ..expression.knowledge.summary_refiner import SummaryRefiner


genes_app = typer.Typer(help="Descriptions of genes, and their text features.")


@genes_app.command("build")
def run_genes_build(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The .safetensors file.", show_default=False)
    ],
    panel: Annotated[Path | None, typer.Option(help="Text file with one gene per line.")] = None,
    genes: Annotated[str | None, typer.Option(help="Genes, or further ones: A,B,C.")] = None,
    tables: Annotated[
        Path | None, typer.Option(help="Folder with gene description and alias tables.")
    ] = None,
    descriptions: Annotated[
        Path | None, typer.Option(help="Table of genes with summaries, .tsv.gz.")
    ] = None,
    aliases: Annotated[Path | None, typer.Option(help="Table of aliases, .tsv.gz.")] = None,
    entrez: Annotated[bool, typer.Option("--entrez", help="Ask NCBI for the summaries.")] = False,
    email: Annotated[str, typer.Option(help="Your address, which NCBI likes to know.")] = "",
    api_key: Annotated[
        str, typer.Option(envvar="NCBI_API_KEY", help="NCBI key, for 10 requests a second.")
    ] = "",
    refine: Annotated[
        str | None, typer.Option(help="OpenAI-compatible endpoint that shortens summaries.")
    ] = None,
    refine_model: Annotated[str | None, typer.Option(help="Its model.")] = None,
    refine_key: Annotated[
        str | None, typer.Option(help="Name of the environment variable with its key.")
    ] = None,
    encoder: Annotated[
        str, typer.Option(help="minilm, biobert, biobert-base, a hub model or a folder.")
    ] = "minilm",
    cache: Annotated[
        Path | None, typer.Option(help="Where answers are kept; default the user's cache.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write what was found as JSON.")] = None,
) -> None:
    """Find the right gene for each symbol, describe it, and encode the description.

    Needs no network unless --entrez, --refine or an encoder of the hub is asked for.
    """
    from ..expression.knowledge.json_client import ResponseCache, gene_cache_folder
    from ..expression.knowledge.ncbi_gene import EntrezClient
    from ..inference.gene_file import write_gene_file
    from ..model.text_encoders import load_text_encoder
    from ..training.build_gene_file import build_gene_file, format_gene_report, make_gene_report

    symbols = _collect_symbols(panel, genes)
    table = _read_table(tables, descriptions, aliases)
    if table is None and not entrez:
        raise GeneError("Give --tables, --descriptions or --entrez, which say what a gene is.")
    answers = ResponseCache(cache or gene_cache_folder())
    refiner = _make_refiner(refine, refine_model, refine_key, answers)
    params = {
        "panel": panel and panel.name,
        "genes": genes,
        "tables": table and table.source,
        "entrez": entrez or None,
        "refine_model": refiner and refiner.model,
    }
    with _progress_bar() as advance:
        gene_file = build_gene_file(
            symbols,
            load_text_encoder(encoder),
            table,
            EntrezClient(answers, email, api_key) if entrez else None,
            refiner,
            {key: value for key, value in params.items() if value is not None},
            advance,
        )
    write_gene_file(out, gene_file)
    if report is not None:
        write_json(report, make_gene_report(gene_file), allow_nan=True)
    typer.echo(format_gene_report(gene_file))
    shape = f"{len(gene_file.genes)} genes x {gene_file.encoder.dimension} numbers"
    typer.echo(f"{shape} written to {out}")


@genes_app.command("show")
def run_genes_show(
    file: Annotated[Path, typer.Argument(help="A gene file.")],
    gene: Annotated[str, typer.Argument(help="Symbol or Ensembl id.")],
) -> None:
    """Print what a gene file says about a gene."""
    from ..inference.gene_file import read_gene_file

    genes = read_gene_file(file)
    row = genes.find_row(gene)
    if row is None:
        raise GeneError(f"{gene} is not among the {len(genes.genes)} genes of {file}.")
    record = genes.genes[row]
    lines = {
        "Gene": record.symbol,
        "Approved": f"{record.approved or 'not resolved'} ({record.match})",
        "Name": record.name,
        "Ensembl": record.ensembl,
        "Entrez": record.entrez,
        "Source": record.source,
        "Note": record.note,
        "Encoder": genes.encoder.label,
        f"Text ({record.text_from})": record.text,
    }
    typer.echo("\n".join(f"{name}: {value}" for name, value in lines.items() if value))


def _collect_symbols(panel: Path | None, genes: str | None) -> list[str]:
    from ..expression.panel import read_panel

    symbols = [*(read_panel(panel).symbols if panel else ()), *(split_names(genes) or ())]
    if not symbols:
        raise GeneError("Give --panel FILE or --genes A,B,C.")
    return list(dict.fromkeys(symbols))


def _read_table(
    tables: Path | None, descriptions: Path | None, aliases: Path | None
) -> GeneTable | None:
    from ..expression.knowledge.gene_records import gene_table_paths, read_gene_table

    if tables is not None and (descriptions or aliases):
        raise GeneError("Give --tables, or --descriptions and --aliases, not both.")
    if aliases is not None and descriptions is None:
        raise GeneError("--aliases needs --descriptions, the table of the genes themselves.")
    if tables is not None:
        descriptions, aliases = gene_table_paths(tables)
    return None if descriptions is None else read_gene_table(descriptions, aliases, summaries=True)


def _make_refiner(
    url: str | None, model: str | None, variable: str | None, answers: Any
) -> SummaryRefiner | None:
    from ..expression.knowledge.summary_refiner import SummaryRefiner

    if url is None:
        return None
    if not model:
        raise GeneError("--refine needs --refine-model, the name of the endpoint's model.")
    if variable is not None and not os.environ.get(variable):
        raise GeneError(
            f"--refine-key names the environment variable {variable}, which is not set; set it to "
            "the endpoint's key."
        )
    return SummaryRefiner(url, model, answers, os.environ[variable] if variable else "")


@contextmanager
def _progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    from tqdm import tqdm

    with tqdm(unit="gene", disable=None, leave=False) as bar:

        def advance(stage: str, done: int, total: int) -> None:
            bar.set_description(stage)
            bar.total, bar.n = total, done
            bar.refresh()

        yield advance
