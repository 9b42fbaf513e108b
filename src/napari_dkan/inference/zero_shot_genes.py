"""Genes outside the panel, predicted from the text embedding of their description."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import SpotsError
from ..expression.panel import Gene, Panel

if TYPE_CHECKING:
    from torch import Tensor

    from ..expression.knowledge.gene_records import GeneRecord
    from ..model import Checkpoint
    from ..training.genes.gene_file import GeneFile


# Text tells a gene's pattern but hardly its level: over 250 genes left out in turn, ridge from
# text to their mean label errs by 0.39 where the panel's mean errs by 0.40, and to the logarithm
# of their spread by 0.272 where a constant errs by 0.276. So no level is made up.
ZERO_SHOT_UNITS = "standard deviations from the gene's own mean"
MAX_ZERO_SHOT_GENES = 1000  # each costs as much as a gene of the panel
SYMBOL_ONLY = "symbol"  # a record's text_from where nothing but the symbol is known


@dataclass(frozen=True)
class ZeroShotGenes:
    """K genes that a checkpoint was not trained on.

    features : (K, d_t) in the space of the checkpoint's gene text.
    in_panel : symbols that were asked for and are in the panel: its predictions hold.
    source : the file the descriptions come from.
    """

    genes: tuple[Gene, ...]
    text_features: Tensor
    symbols_in_panel: tuple[str, ...] = ()
    source: str = ""

    @property
    def symbols(self) -> tuple[str, ...]:
        return tuple(g.symbol for g in self.genes)


@dataclass(frozen=True)
class ZeroShotExpectation:
    """What a card measured for genes left out of training; None where it did not.

    pcc, shuffled_pcc : mean correlation with their own text and with another gene's.
    panel_mean_pcc : of the mean prediction of the panel, which knows nothing of the gene.
    """

    pcc: float | None = None
    shuffled_pcc: float | None = None
    panel_mean_pcc: float | None = None
    beats_shuffled: bool = False

    @property
    def summary(self) -> str:
        if self.pcc is None or self.shuffled_pcc is None:
            return "never measured"
        text = f"PCC {self.pcc:.2f}; shuffled text {self.shuffled_pcc:.2f}"
        if self.panel_mean_pcc is not None:
            text += f"; panel's mean {self.panel_mean_pcc:.2f}"
        return (
            f"expected {text}" if self.beats_shuffled else f"does not beat shuffled text ({text})"
        )


def read_zero_shot_expectation(checkpoint: Checkpoint) -> ZeroShotExpectation:
    """The card's entry ``zero_shot``; one that is absent or odd counts as never measured."""
    entry: Any = checkpoint.card.get("zero_shot")
    entry = entry if isinstance(entry, dict) else {}
    names = ("pcc", "shuffled_pcc", "panel_mean_pcc")
    pcc, shuffled, mean = (_parse_correlation(entry.get(n)) for n in names)
    if pcc is None or shuffled is None:
        return ZeroShotExpectation()
    return ZeroShotExpectation(pcc, shuffled, mean, entry.get("beats_shuffled") is True)


def explain_zero_shot_unavailable(checkpoint: Checkpoint, allow_unproven: bool = False) -> str:
    """Why this checkpoint predicts no further genes, as half a sentence; "" where it does."""
    if checkpoint.text_basis is None:
        return "this checkpoint cannot place genes by their text"
    known = read_zero_shot_expectation(checkpoint)
    if known.beats_shuffled or allow_unproven:
        return ""
    return f"on this checkpoint prediction from text alone: {known.summary}"


def load_zero_shot_genes(
    checkpoint: Checkpoint,
    gene_file: str | Path,
    symbols: Sequence[str] | None = None,
    allow_unproven: bool = False,
) -> ZeroShotGenes:
    """Genes of a file from `napari-dkan genes build`, ready for this checkpoint's network.

    symbols : which; all of the file's that are not in the panel when None.
    allow_unproven : also where the card has not measured that their own text beats another's.

    Raises SpotsError when the checkpoint cannot do that, or the file has not the genes or is
    of another text encoder; GeneError when the file cannot be read.
    """
    basis = checkpoint.text_basis
    if basis is None:
        raise SpotsError(
            f"{checkpoint.title} holds no text basis, so it cannot place genes by their text; "
            "use a checkpoint trained with a gene text file."
        )
    from ..training.genes.gene_file import read_gene_file

    if not allow_unproven and explain_zero_shot_unavailable(checkpoint):
        raise SpotsError(
            f"Genes outside the panel are off for {checkpoint.title}: prediction from text alone "
            f"{_format_expectation(read_zero_shot_expectation(checkpoint))}; allow unproven genes (--allow-unproven) to see "
            "them all the same."
        )
    path, file = Path(gene_file), read_gene_file(gene_file)
    if file.encoder.label != basis.encoder:
        raise SpotsError(
            f"{path} was made with the text encoder {file.encoder.label}, and this checkpoint "
            f"takes {basis.encoder}; build the file again with that encoder."
        )
    asked = symbols  # without any, all that have a description
    if asked is None:
        asked = [g.symbol for g in file.genes if g.text_from != SYMBOL_ONLY]
    rows, in_panel = _split_by_panel(path, file, checkpoint.panel, asked)
    if len(rows) > MAX_ZERO_SHOT_GENES:
        raise SpotsError(
            f"{path} has {len(rows):,} genes outside the panel; name those you want, "
            f"at most {MAX_ZERO_SHOT_GENES:,}."
        )
    return ZeroShotGenes(
        tuple(_to_panel_gene(file.genes[r]) for r in rows),
        basis.project(file.features[rows]),
        () if symbols is None else in_panel,
        path.name,
    )


def _split_by_panel(
    path: Path, file: GeneFile, panel: Panel, requested: Sequence[str]
) -> tuple[list[int], tuple[str, ...]]:
    """Rows of the file that are new, and panel symbols among what was asked for."""
    rows: list[int] = []
    in_panel: list[str] = []
    for symbol in requested:
        row = file.find_row(symbol)
        names = [symbol] if row is None else _list_gene_names(file.genes[row])
        ours = next((known for n in names if (known := _find_panel_symbol(panel, n))), "")
        if ours:
            in_panel.append(ours)
        elif row is None:
            raise SpotsError(
                f"{path} has no text for {symbol}; build a file that has it with "
                "`napari-dkan genes build`."
            )
        elif file.genes[row].text_from == SYMBOL_ONLY:
            raise SpotsError(
                f"{path} has no description of {symbol}, so nothing places it; build the file "
                "again with a table that knows it."
            )
        else:
            rows.append(row)
    return list(dict.fromkeys(rows)), tuple(dict.fromkeys(in_panel))


def _find_panel_symbol(panel: Panel, name: str) -> str:
    """The panel's symbol of a gene name, "" where it has none."""
    try:
        return panel.symbols[panel.row(name)]
    except SpotsError:
        return ""


def _list_gene_names(gene: GeneRecord) -> list[str]:
    return [n for n in (gene.symbol, gene.approved, gene.ensembl) if n]


def _to_panel_gene(gene: GeneRecord) -> Gene:
    also = (gene.approved,) if gene.approved not in ("", gene.symbol) else ()
    return Gene(gene.symbol, gene.ensembl, gene.name, also)


def _parse_correlation(value: Any) -> float | None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number and -1 <= value <= 1 else None


def _format_expectation(expectation: ZeroShotExpectation) -> str:
    return "was never measured" if expectation.pcc is None else expectation.summary
