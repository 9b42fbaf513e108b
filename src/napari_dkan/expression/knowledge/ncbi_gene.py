"""NCBI Gene through the Entrez E-utilities (NCBI Bookshelf NBK25501): esummary and esearch.

A description is used only where the NCBI record is that of the requested gene.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any
from urllib.parse import urlencode

from ...errors import GeneError
from .gene_records import RENAMED_SYMBOLS, GeneRecord
from .json_client import JsonClient, JsonRequestError, ResponseCache, validate_url

BASE_URL = "https://eutils.ncbi.nlm.nih.gov/entrez/eutils"
HUMAN_TAXON_ID = 9606
_IDS_PER_REQUEST = 100  # keeps the URL short enough
# No characters that would change the meaning of a query.
_SYMBOL_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@/-]{0,40}")


@dataclass(frozen=True)
class EntrezGene:
    """A human gene of NCBI, with the symbol of the nomenclature committee where there is one."""

    entrez: str
    symbol: str
    name: str
    aliases: tuple[str, ...]
    summary: str


class EntrezClient:
    """Fetches human gene records by id, and ids by approved symbol; responses are cached on disk.

    Parameters
    ----------
    cache
        For responses.
    email, api_key
        As requested by NCBI; a key raises the limit from 3 to 10 requests per second. Neither is
        stored or shown.
    base_url, client
        Replaceable in tests.
    """

    def __init__(
        self,
        cache: ResponseCache,
        email: str = "",
        api_key: str = "",
        base_url: str = "",
        client: JsonClient | None = None,
    ) -> None:
        self._cache = cache
        self._identification = {"tool": "napari-dkan", "email": email, "api_key": api_key}
        self._base_url = validate_url(base_url or BASE_URL, "The E-utilities address")
        self._client = client or JsonClient(requests_per_second=10 if api_key else 3)

    def fetch_genes(self, ids: Sequence[str]) -> dict[str, EntrezGene]:
        """Fetch records by id, without ids that have no human record.

        Raises GeneError if NCBI cannot be reached or its response is malformed.
        """
        genes = {id: gene for id in ids if (gene := self._read_cached_gene(id)) is not None}
        missing = [id for id in dict.fromkeys(ids) if id not in genes]
        for start in range(0, len(missing), _IDS_PER_REQUEST):
            batch = missing[start : start + _IDS_PER_REQUEST]
            result = self._request("esummary", id=",".join(batch)).get("result")
            if not isinstance(result, dict):
                raise _malformed_response_error()
            for id in batch:
                gene = parse_human_gene(id, result.get(id))
                if gene is not None:
                    self._cache.put(asdict(gene), "esummary", self._base_url, id)
                    genes[id] = gene
        return genes

    def search_ids(self, symbol: str) -> tuple[str, ...]:
        """Search NCBI for ids of human genes with this preferred symbol.

        Raises GeneError if NCBI cannot be reached or its response is malformed.
        """
        if not _SYMBOL_PATTERN.fullmatch(symbol):
            return ()
        cached = self._cache.get("esearch", self._base_url, symbol)
        if _is_string_list(cached):
            return tuple(cached)
        term = f"{symbol}[Preferred Symbol] AND {HUMAN_TAXON_ID}[Taxonomy ID]"
        result = self._request("esearch", term=term).get("esearchresult")
        ids = result.get("idlist") if isinstance(result, dict) else None
        if not isinstance(ids, list) or not _is_string_list(ids):
            raise _malformed_response_error()
        if ids:  # a missing gene may be added later, so it is not cached
            self._cache.put(ids, "esearch", self._base_url, symbol)
        return tuple(ids)

    def _request(self, tool: str, **parameters: str) -> dict[str, Any]:
        query = {"db": "gene", "retmode": "json", **parameters, **self._identification}
        url = f"{self._base_url}/{tool}.fcgi?{urlencode({k: v for k, v in query.items() if v})}"
        try:
            response = self._client.request_json(url)
        except JsonRequestError as error:
            raise GeneError(
                f"NCBI gave no gene records ({error}); check the network and try again (what "
                "was fetched is kept), or leave out --entrez and give --tables."
            ) from None
        if not isinstance(response, dict) or "error" in response:
            raise _malformed_response_error()
        return response

    def _read_cached_gene(self, id: str) -> EntrezGene | None:
        cached = self._cache.get("esummary", self._base_url, id)
        try:
            gene = EntrezGene(**{**cached, "aliases": tuple(cached["aliases"])})
        except (TypeError, KeyError):
            return None
        strings = (gene.entrez, gene.symbol, gene.name, gene.summary, *gene.aliases)
        return gene if all(isinstance(s, str) for s in strings) else None


def parse_human_gene(id: str, entry: Any) -> EntrezGene | None:
    """Parse an entry of an esummary response; None if withdrawn or of another species."""
    if not isinstance(entry, dict) or "error" in entry:
        return None
    organism = entry.get("organism")
    if not isinstance(organism, dict) or str(organism.get("taxid")) != str(HUMAN_TAXON_ID):
        return None
    if str(entry.get("currentid") or "0") != "0":
        return None

    def text(key: str) -> str:
        value = entry.get(key)
        return " ".join(value.split()) if isinstance(value, str) else ""

    symbol = text("nomenclaturesymbol") or text("name")
    aliases = tuple(a for a in text("otheraliases").split(", ") if a)
    name = text("nomenclaturename") or text("description")
    if not symbol:
        return None
    return EntrezGene(id, symbol, name, aliases, _strip_attribution(text("summary")))


def _strip_attribution(summary: str) -> str:
    """Remove the note on who provided a summary."""
    return re.sub(r"\s*\[(provided|supplied) by [^\]]*\]\.?\s*$", "", summary)


def _is_string_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) for v in value)


def _malformed_response_error() -> GeneError:
    return GeneError("NCBI's answer is not a list of gene records; try again later.")


def update_from_entrez(
    records: Sequence[GeneRecord],
    entrez: EntrezClient,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> list[GeneRecord]:
    """Update records with the names and summaries of NCBI.

    A gene with a known Entrez id is fetched by it, others are searched by approved symbol. An
    NCBI record is used only if its nomenclature symbol is the requested one, or, for an id, if
    the requested one is an alias and no longer a symbol of any gene (it was renamed). A record of
    another gene is mentioned in the note, and its summary is not used.

    Parameters
    ----------
    advance
        Called with the number of finished records and of all records.

    Returns
    -------
    list of GeneRecord
        In the same order.

    Raises
    ------
    GeneError
        NCBI cannot be reached.
    """
    genes = entrez.fetch_genes([record.entrez for record in records if record.entrez])
    updated = []
    for done, record in enumerate(records):
        advance(done, len(records))
        updated.append(_update_record(record, genes.get(record.entrez), entrez))
    advance(len(records), len(records))
    return updated


def _update_record(
    record: GeneRecord, by_id: EntrezGene | None, entrez: EntrezClient
) -> GeneRecord:
    symbol = record.approved or RENAMED_SYMBOLS.get(record.symbol, record.symbol)
    if by_id is not None and by_id.symbol == symbol:
        return _apply_entrez_gene(record, by_id)
    ids = entrez.search_ids(symbol)
    if by_id is not None and symbol in by_id.aliases and not ids:
        return _apply_entrez_gene(record, by_id).with_note(
            f"NCBI calls {symbol} {by_id.symbol} now"
        )
    if by_id is not None:
        note = f"mismatch: NCBI's record {by_id.entrez} is {by_id.symbol}, not {symbol}"
        # The summary of the table is from the same record.
        record = record.with_description(record.name, "", record.source)
        record = replace(record, entrez="").with_note(note)
    genes = entrez.fetch_genes(ids)
    matches = [gene for gene in genes.values() if gene.symbol == symbol]
    if len(matches) == 1:
        return _apply_entrez_gene(record, matches[0])
    if matches:
        n = len(matches)
        return record.with_note(f"NCBI has {n} human genes called {symbol}, none was taken")
    for gene in genes.values():
        record = record.with_note(f"mismatch: NCBI found {gene.symbol} for {symbol}")
    return record if genes else record.with_note(f"NCBI has no human gene called {symbol}")


def _apply_entrez_gene(record: GeneRecord, gene: EntrezGene) -> GeneRecord:
    record, match = record.without_doubt_notes(), record.match
    if not record.approved:
        match = "approved" if gene.symbol == record.symbol else "renamed"
        record = replace(record, note="")
        if match == "renamed":
            record = record.with_note(f"{record.symbol} is called {gene.symbol} now")
    record = replace(record, approved=gene.symbol, entrez=gene.entrez, match=match)
    if not gene.summary and record.text_from == "summary":
        return record.with_note("NCBI has no summary, so the table's is kept")
    return record.with_description(gene.name, gene.summary, f"NCBI Gene {gene.entrez}")
