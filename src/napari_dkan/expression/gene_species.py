"""Guess the species of genes by how their names are written."""

from __future__ import annotations

import re
from collections.abc import Iterable

_ENSEMBL_SPECIES = {
    "ENSMUSG": "mouse genes",
    "ENSRNOG": "rat genes",
    "ENSDARG": "zebrafish genes",
    "ENSG": "human genes",
}
_ENSEMBL_ID = re.compile(r"(ENS[A-Z]*G)\d{6,}")
_CAPITALIZED = re.compile(r"[A-Z][a-z0-9.-]*[a-z][a-z0-9.-]*")
_LOWER_CASE = re.compile(r"[a-z][a-z0-9.-]*")
_MIN_SHARE = 0.5


def describe_species(names: Iterable[str]) -> str:
    """Return what the names of genes look like, such as "mouse genes"; "" for human ones.

    Mouse and rat symbols are capitalised (Actb), those of zebrafish are in lower case (actb1).
    """
    names = list(names)
    ids = [match[1] for name in names if (match := _ENSEMBL_ID.match(name))]
    if names and len(ids) > _MIN_SHARE * len(names):
        species = _ENSEMBL_SPECIES.get(max(set(ids), key=ids.count), "genes of another species")
        return "" if species == "human genes" else species
    symbols = [name for name in names if name[:1].isalpha()]
    for pattern, species in (
        (_CAPITALIZED, "mouse or rat genes (capitalised)"),
        (_LOWER_CASE, "genes of zebrafish or another species (lower case)"),
    ):
        if symbols and sum(map(bool, map(pattern.fullmatch, symbols))) > _MIN_SHARE * len(symbols):
            return species
    return ""
