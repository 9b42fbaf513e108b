"""Zero-shot genes: genes outside the panel that are predicted from their description."""

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
    from .gene_file import GeneFile


# Text predicts a gene's pattern but hardly its level. Over 250 genes left out in turn, a ridge
# regression from text to their mean label has an error of 0.39 (0.40 for the panel's mean), and to
# the logarithm of their spread one of 0.272 (0.276 for a constant). So no level is predicted.
ZERO_SHOT_UNITS = "standard deviations from the gene's own mean"
MAX_ZERO_SHOT_GENES = 1000  # each costs as much as a gene of the panel
SYMBOL_ONLY = "symbol"  # `GeneRecord.text_from` of a gene without a description


@dataclass(frozen=True)
class ZeroShotGenes:
    """K genes that a checkpoint was not trained on.

    Attributes
    ----------
    text_features : Tensor
        (K, d_t) in the basis of the checkpoint's gene text.
    symbols_in_panel : tuple of str
        Requested symbols that are in the panel, whose predictions are better.
    source : str
        The file of the descriptions.
    """

    genes: tuple[Gene, ...]
    text_features: Tensor
    symbols_in_panel: tuple[str, ...] = ()
    source: str = ""

    @property
    def symbols(self) -> tuple[str, ...]:
        """Symbols of the genes."""
        return tuple(g.symbol for g in self.genes)


@dataclass(frozen=True)
class ZeroShotExpectation:
    """The accuracy that a card reports for genes left out of training; None where not measured.

    Attributes
    ----------
    pcc, shuffled_pcc : float or None
        Mean correlation with the gene's own text and with that of another gene.
    panel_mean_pcc : float or None
        Mean correlation of the panel's mean prediction, which does not depend on the gene.
    beats_shuffled : bool
        Whether the own text is better than another gene's.
    depth_partial : tuple of float or None
        The three correlations with depth regressed out; None where the card has none.
    """

    pcc: float | None = None
    shuffled_pcc: float | None = None
    panel_mean_pcc: float | None = None
    beats_shuffled: bool = False
    depth_partial: tuple[float, float, float] | None = None

    @property
    def summary(self) -> str:
        """The accuracy in words, beside depth where that is known."""
        if self.pcc is None or self.shuffled_pcc is None:
            return "never measured"
        if self.depth_partial is not None:
            text = "depth-partial PCC {:.2f}; shuffled text {:.2f}; panel's mean {:.2f}".format(
                *self.depth_partial
            )
        else:
            text = f"PCC {self.pcc:.2f}; shuffled text {self.shuffled_pcc:.2f}"
            if self.panel_mean_pcc is not None:
                text += f"; panel's mean {self.panel_mean_pcc:.2f}"
        return (
            f"expected {text}" if self.beats_shuffled else f"does not beat shuffled text ({text})"
        )


def read_zero_shot_expectation(checkpoint: Checkpoint) -> ZeroShotExpectation:
    """Read the card's entry ``zero_shot``; an absent or invalid one counts as not measured."""
    entry: Any = checkpoint.card.get("zero_shot")
    entry = entry if isinstance(entry, dict) else {}
    pcc, shuffled, mean = _parse_correlations(entry)
    if pcc is None or shuffled is None:
        return ZeroShotExpectation()
    partial: Any = entry.get("depth_partial")
    own, other, level = _parse_correlations(partial if isinstance(partial, dict) else {})
    known = None if own is None or other is None or level is None else (own, other, level)
    return ZeroShotExpectation(pcc, shuffled, mean, entry.get("beats_shuffled") is True, known)


def explain_zero_shot_unavailable(checkpoint: Checkpoint, allow_unproven: bool = False) -> str:
    """Explain as half a sentence why a checkpoint predicts no zero-shot genes; "" if it does."""
    if checkpoint.text_basis is None:
        return "this checkpoint cannot place genes by their text"
    expectation = read_zero_shot_expectation(checkpoint)
    if expectation.beats_shuffled or allow_unproven:
        return ""
    return f"on this checkpoint prediction from text alone: {expectation.summary}"


def load_zero_shot_genes(
    checkpoint: Checkpoint,
    gene_file: str | Path,
    symbols: Sequence[str] | None = None,
    allow_unproven: bool = False,
) -> ZeroShotGenes:
    """Load genes of a file of `napari-dkan genes build` for a checkpoint.

    Parameters
    ----------
    symbols : sequence of str, optional
        All genes of the file with a description that are not in the panel when None.
    allow_unproven : bool
        Whether to load genes where the card does not show that their own text is better than
        another gene's.

    Raises
    ------
    SpotsError
        When the checkpoint does not predict zero-shot genes, or the file lacks a gene or is of
        another text encoder.
    GeneError
        When the file cannot be read.
    """
    basis = checkpoint.text_basis
    if basis is None:
        raise SpotsError(
            f"{checkpoint.title} holds no text basis, so it cannot place genes by their text; "
            "use a checkpoint trained with a gene text file."
        )
    from .gene_file import read_gene_file

    if not allow_unproven and explain_zero_shot_unavailable(checkpoint):
        expectation = _format_expectation(read_zero_shot_expectation(checkpoint))
        raise SpotsError(
            f"Genes outside the panel are off for {checkpoint.title}: prediction from text alone "
            f"{expectation}; allow unproven genes to see them all the same."
        )
    path, file = Path(gene_file), read_gene_file(gene_file)
    if file.encoder.label != basis.encoder:
        raise SpotsError(
            f"{path} was made with the text encoder {file.encoder.label}, and this checkpoint "
            f"takes {basis.encoder}; build the file again with that encoder."
        )
    requested = symbols
    if requested is None:
        requested = [g.symbol for g in file.genes if g.text_from != SYMBOL_ONLY]
    rows, in_panel = _split_by_panel(path, file, checkpoint.panel, requested)
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
    """Rows of the file of genes outside the panel, and the requested symbols of the panel."""
    rows: list[int] = []
    in_panel: list[str] = []
    for symbol in requested:
        row = file.find_row(symbol)
        names = [symbol] if row is None else _list_gene_names(file.genes[row])
        panel_symbol = next((s for n in names if (s := _find_panel_symbol(panel, n))), "")
        if panel_symbol:
            in_panel.append(panel_symbol)
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
    """The panel's symbol of a gene, "" where the panel lacks it."""
    try:
        return panel.symbols[panel.row(name)]
    except SpotsError:
        return ""


def _list_gene_names(gene: GeneRecord) -> list[str]:
    return [n for n in (gene.symbol, gene.approved, gene.ensembl) if n]


def _to_panel_gene(gene: GeneRecord) -> Gene:
    aliases = (gene.approved,) if gene.approved not in ("", gene.symbol) else ()
    return Gene(gene.symbol, gene.ensembl, gene.name, aliases)


def _parse_correlations(entry: dict[str, Any]) -> tuple[float | None, float | None, float | None]:
    """With the own text, with that of another gene, and of the panel's mean."""
    names = ("pcc", "shuffled_pcc", "panel_mean_pcc")
    own, other, level = (_parse_correlation(entry.get(name)) for name in names)
    return own, other, level


def _parse_correlation(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and -1 <= value <= 1 else None


def _format_expectation(expectation: ZeroShotExpectation) -> str:
    return "was never measured" if expectation.pcc is None else expectation.summary
