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
_IDS_PER_REQUEST = 100  # ids in one request, short enough for an address
_SYMBOL_PATTERN = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._@/-]{0,40}"
)  # nothing that could widen a query


@dataclass(frozen=True)
class EntrezGene:
    """A human gene as NCBI has it: symbol is the nomenclature committee's where there is one."""

    entrez: str
    symbol: str
    name: str
    aliases: tuple[str, ...]
    summary: str


class EntrezClient:
    """Human gene records by id, and ids by approved symbol; every answer is kept on disk.

    email, api_key : as NCBI asks for; a key raises the limit from 3 requests a second to 10.
    Neither is kept or shown. base_url, web : for tests.
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
        """Records by id; an id without a human record is absent.

        Raises GeneError when NCBI cannot be reached or does not answer as it should.
        """
        found = {id: gene for id in ids if (gene := self._read_cached_gene(id)) is not None}
        missing = [id for id in dict.fromkeys(ids) if id not in found]
        for start in range(0, len(missing), _IDS_PER_REQUEST):
            some = missing[start : start + _IDS_PER_REQUEST]
            answer = self._request("esummary", id=",".join(some))
            result = answer.get("result")
            if not isinstance(result, dict):
                raise _malformed_response_error()
            for id in some:
                gene = _parse_human_gene(id, result.get(id))
                if gene is not None:
                    self._cache.put(asdict(gene), "esummary", self._base_url, id)
                    found[id] = gene
        return found

    def search_ids(self, symbol: str) -> tuple[str, ...]:
        """Ids of human genes whose preferred symbol this is, by NCBI's own index.

        Raises GeneError when NCBI cannot be reached or does not answer as it should.
        """
        if not _SYMBOL_PATTERN.fullmatch(symbol):
            return ()
        kept = self._cache.get("esearch", self._base_url, symbol)
        if _is_string_list(kept):
            return tuple(kept)
        term = f"{symbol}[Preferred Symbol] AND {HUMAN_TAXON_ID}[Taxonomy ID]"
        result = self._request("esearch", term=term).get("esearchresult")
        ids = result.get("idlist") if isinstance(result, dict) else None
        if not isinstance(ids, list) or not _is_string_list(ids):
            raise _malformed_response_error()
        if ids:  # a gene that is not there today may be there tomorrow
            self._cache.put(ids, "esearch", self._base_url, symbol)
        return tuple(ids)

    def _request(self, tool: str, **parameters: str) -> dict[str, Any]:
        query = {"db": "gene", "retmode": "json", **parameters, **self._identification}
        url = f"{self._base_url}/{tool}.fcgi?{urlencode({k: v for k, v in query.items() if v})}"
        try:
            answer = self._client.request_json(url)
        except JsonRequestError as error:
            raise GeneError(
                f"NCBI gave no gene records ({error}); check the network and try again (what "
                "was fetched is kept), or leave out --entrez and give --tables."
            ) from None
        if not isinstance(answer, dict) or "error" in answer:
            raise _malformed_response_error()
        return answer

    def _read_cached_gene(self, id: str) -> EntrezGene | None:
        kept = self._cache.get("esummary", self._base_url, id)
        try:
            gene = EntrezGene(**{**kept, "aliases": tuple(kept["aliases"])})
        except (TypeError, KeyError):
            return None
        strings = (gene.entrez, gene.symbol, gene.name, gene.summary, *gene.aliases)
        return gene if all(isinstance(s, str) for s in strings) else None


def _parse_human_gene(id: str, entry: Any) -> EntrezGene | None:
    """One entry of an esummary answer; None for a withdrawn record or another species'."""
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
    return (
        EntrezGene(id, symbol, name, aliases, _strip_attribution(text("summary")))
        if symbol
        else None
    )


def _strip_attribution(summary: str) -> str:
    """A summary without the line on who provided it and when."""
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
    """The records with NCBI's names and summaries, in the same order.

    A gene whose Entrez id is known is fetched by it, others are searched by approved symbol.
    Either way the record counts only when its nomenclature symbol is the wanted one, or, for an
    id, when the wanted one is among its aliases and no gene's symbol any more (it was renamed
    since). A record of another gene is reported in the note, and no summary is taken from it.

    Raises GeneError when NCBI cannot be reached.
    """
    known = entrez.fetch_genes([r.entrez for r in records if r.entrez])
    out = []
    for done, record in enumerate(records):
        advance(done, len(records))
        out.append(_update_record(record, known.get(record.entrez), entrez))
    advance(len(records), len(records))
    return out


def _update_record(
    record: GeneRecord, by_id: EntrezGene | None, entrez: EntrezClient
) -> GeneRecord:
    wanted = record.approved or RENAMED_SYMBOLS.get(record.symbol, record.symbol)
    if by_id is not None and by_id.symbol == wanted:
        return _apply_entrez_gene(record, by_id)
    ids = entrez.search_ids(wanted)
    if by_id is not None and wanted in by_id.aliases and not ids:
        return _apply_entrez_gene(record, by_id).with_note(
            f"NCBI calls {wanted} {by_id.symbol} now"
        )
    if by_id is not None:
        note = f"mismatch: NCBI's record {by_id.entrez} is {by_id.symbol}, not {wanted}"
        # The table has its summary from the same record.
        record = replace(
            record.with_description(record.name, "", record.source), entrez=""
        ).with_note(note)
    found = entrez.fetch_genes(ids)
    same = [gene for gene in found.values() if gene.symbol == wanted]
    if len(same) == 1:
        return _apply_entrez_gene(record, same[0])
    if same:
        return record.with_note(f"NCBI has {len(same)} human genes called {wanted}, none was taken")
    for gene in found.values():
        record = record.with_note(f"mismatch: NCBI found {gene.symbol} for {wanted}")
    return record if found else record.with_note(f"NCBI has no human gene called {wanted}")


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
