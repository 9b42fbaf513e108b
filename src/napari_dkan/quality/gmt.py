"""Gene sets from GMT files: a line per set, tabs between its name, a description and its genes.

Format: Broad Institute, "GMT: Gene Matrix Transposed file format". Hallmark: Liberzon et al., Cell
Systems 1, 417, 2015.
"""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ..errors import GeneError

HALLMARK_FILE = Path(__file__).parent / "sets" / "hallmark.v7.0.symbols.gmt.gz"
_MAX_GMT_BYTES = 200_000_000  # bytes of text; all of MSigDB has about a tenth


@dataclass(frozen=True)
class GeneSet:
    """A named set of gene symbols, each once, in the order of the file."""

    name: str
    genes: tuple[str, ...]

    @property
    def title(self) -> str:
        """For people: ``HALLMARK_P53_PATHWAY`` -> ``P53 PATHWAY``."""
        return self.name.removeprefix("HALLMARK_").replace("_", " ").strip() or self.name


def read_gmt(path: str | Path) -> tuple[GeneSet, ...]:
    """The sets of a .gmt or .gmt.gz file; blank lines and lines that start with # are skipped.

    Genes may carry a weight after a comma, as Enrichr writes them. Raises GeneError naming the
    file when it is missing, no such text, without a set, or names a set twice.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as file:
            data = file.read(_MAX_GMT_BYTES + 1)
        if len(data) > _MAX_GMT_BYTES:
            raise GeneError(f"{path.name} is larger than any collection of gene sets; check it.")
        text = data.decode("utf-8-sig")
    except FileNotFoundError:
        raise GeneError(f"There is no file {path}; check the path.") from None
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise GeneError(f"{path.name} is not a readable GMT file; download it again.") from error
    sets = [_parse_gmt_line(line) for line in text.splitlines() if line.strip() and line[0] != "#"]
    found = [s for s in sets if s is not None and s.genes]
    if not found:
        raise GeneError(
            f"{path.name} holds no gene set; a GMT file has a line per set with tabs between its "
            "name, a description and its genes."
        )
    names: set[str] = set()
    for one in found:
        if one.name in names:
            raise GeneError(f"{path.name} names the set {one.name} twice; rename one.")
        names.add(one.name)
    return tuple(found)


@cache
def load_hallmark_sets() -> tuple[GeneSet, ...]:
    """The 50 Hallmark sets of MSigDB v7.0, which come with the package (CC-BY-4.0)."""
    return read_gmt(HALLMARK_FILE)


def _parse_gmt_line(line: str) -> GeneSet | None:
    name, _, rest = line.partition("\t")
    genes = (g.partition(",")[0].strip() for g in rest.split("\t")[1:])
    unique = tuple(dict.fromkeys(g for g in genes if g))
    return GeneSet(name.strip(), unique) if name.strip() else None
