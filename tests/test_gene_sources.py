"""NCBI and a language model, played by a server on this machine: right gene, cache, failures."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_dkan.cli import main
from napari_dkan.errors import GeneError
from napari_dkan.expression.knowledge import ncbi_gene
from napari_dkan.expression.knowledge.gene_records import (
    GeneRecord,
    GeneTable,
    GeneTableEntry,
    record_from_table,
)
from napari_dkan.expression.knowledge.json_client import JsonClient, ResponseCache
from napari_dkan.expression.knowledge.ncbi_gene import EntrezClient, update_from_entrez
from napari_dkan.expression.knowledge.summary_refiner import SummaryRefiner
from napari_dkan.inference.gene_file import read_gene_file
from napari_dkan.model.text_encoders import TextEncoderSpec

KEY = "sesame-0123456789"
HISTONE = "Histones are basic nuclear proteins. [provided by RefSeq, Apr 2016]"


def entry(uid: str, symbol: str, name: str, summary: str, **more: Any) -> dict[str, Any]:
    """A gene as esummary answers it in JSON, version 0.3."""
    return {
        "uid": uid,
        "name": symbol,
        "description": name,
        "status": "",
        "currentid": "",
        "chromosome": "10",
        "geneticsource": "genomic",
        "maplocation": "10q22.1",
        "otheraliases": "",
        "otherdesignations": "",
        "nomenclaturesymbol": symbol,
        "nomenclaturename": name,
        "nomenclaturestatus": "Official",
        "mim": ["176801"],
        "genomicinfo": [{"chrloc": "10", "chraccver": "NC_000010.11", "exoncount": 15}],
        "geneweight": "20512",
        "summary": summary,
        "organism": {"scientificname": "Homo sapiens", "commonname": "human", "taxid": 9606},
        "locationhist": [],
    } | more


MOUSE = {"scientificname": "Mus musculus", "commonname": "house mouse", "taxid": 10090}
GENES = {
    e["uid"]: e
    for e in (
        entry("5660", "PSAP", "prosaposin", "Makes saposins.", otheraliases="GLBA, SAP1"),
        entry("653509", "SFTPA1", "surfactant protein A1", "Lung surfactant."),
        entry("3021", "H3-3B", "H3.3 histone B", HISTONE, otheraliases="H3.3B, H3F3B"),
        entry("3020", "H3-3A", "H3.3 histone A", HISTONE),
        entry("3853", "KRT6A", "keratin 6A", "A keratin."),
        entry("3963", "LGALS7", "galectin 7", "A galectin.", otheraliases="GAL7, LGALS7B"),
        entry("653499", "LGALS7B", "galectin 7B", "Its twin."),
        entry("9368", "NHERF1", "NHERF family 1", "A scaffold.", otheraliases="EBP50, SLC9A3R1"),
        entry("3514", "IGKC", "immunoglobulin kappa constant", ""),
        entry("19156", "Psap", "prosaposin", "The mouse's.", organism=MOUSE),
        entry("11", "OLD", "old", "Withdrawn.", currentid="5660", status="1"),
    )
}
# what an index may answer: the right gene, or, for KRT6C, its neighbour
FOUND = {
    "PSAP": ["5660"],
    "PSAPX": ["5660"],
    "H3-3B": ["3021"],
    "KRT6C": ["3853"],
    "LGALS7B": ["653499"],
    "TWO": ["5660", "653509"],
}


@dataclass
class Fake:
    """A server whose answers are a function: (path, query, body, headers) -> (status, JSON)."""

    url: str = ""
    answer: Callable[[str, dict[str, str], Any], tuple[int, Any]] = lambda *_: (404, {})
    asked: list[tuple[str, dict[str, str], Any, dict[str, str]]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    monkeypatch.setenv("no_proxy", "*")
    fake = Fake()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            fake.asked.append((parts.path, query, body, dict(self.headers)))
            status, content = fake.answer(parts.path, query, body)
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **fake.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    fake.url = f"http://127.0.0.1:{http.server_port}"
    yield fake
    http.shutdown()
    thread.join()
    http.server_close()


def eutils(path: str, query: dict[str, str], _: Any) -> tuple[int, Any]:
    assert query["db"] == "gene" and query["retmode"] == "json" and query["tool"] == "napari-dkan"
    if path.endswith("/esearch.fcgi"):
        symbol, rest = query["term"].split("[", 1)
        assert rest == "Preferred Symbol] AND 9606[Taxonomy ID]"
        ids = FOUND.get(symbol, [])
        result = {"count": str(len(ids)), "retmax": "20", "retstart": "0", "idlist": ids}
        header = {"type": "esearch", "version": "0.3"}
        return 200, {"header": header, "esearchresult": result}
    assert path.endswith("/esummary.fcgi")
    ids = query["id"].split(",")
    none = {"error": "cannot get document summary"}
    result = {"uids": ids} | {i: GENES.get(i, {"uid": i} | none) for i in ids}
    return 200, {"header": {"type": "esummary", "version": "0.3"}, "result": result}


def quick(**more: Any) -> JsonClient:
    return JsonClient(requests_per_second=1e6, sleep=lambda _: None, timeout_s=5, **more)


def ncbi(server: Fake, folder: Path, **more: Any) -> EntrezClient:
    return EntrezClient(ResponseCache(folder), base_url=server.url, client=quick(), **more)


def table(*genes: GeneTableEntry, **aliases: tuple[str, ...]) -> GeneTable:
    return GeneTable({g.symbol: g for g in genes}, aliases, "table")


def known(
    symbol: str, entrez: str, name: str = "", summary: str = "From the table."
) -> GeneTableEntry:
    return GeneTableEntry(symbol, f"ENSG-{symbol}", name, entrez, "protein_coding", summary)


def test_records_come_by_id_or_by_approved_symbol(server: Fake, tmp_path: Path) -> None:
    server.answer = eutils
    genes = table(known("PSAP", "5660"), known("IGKC", "3514", "kappa", ""), SAP1=("PSAP",))
    asked = ("SAP1", "IGKC", "H3F3B", "AP000769.1")
    records = [record_from_table(symbol, genes) for symbol in asked]
    psap, igkc, h3, clone = update_from_entrez(records, ncbi(server, tmp_path))
    assert (psap.symbol, psap.approved, psap.match, psap.entrez) == (
        "SAP1",
        "PSAP",
        "alias",
        "5660",
    )
    assert psap.text == "PSAP, prosaposin. Makes saposins." and psap.source == "NCBI Gene 5660"
    assert (igkc.text_from, igkc.text) == ("name", "IGKC, immunoglobulin kappa constant.")
    # renamed since the panel was made, found without a table; who wrote the summary is left out
    assert (h3.approved, h3.entrez, h3.match) == ("H3-3B", "3021", "renamed")
    assert h3.text == "H3-3B, H3.3 histone B. Histones are basic nuclear proteins."
    assert clone.approved == "" and "no human gene called AP000769.1" in clone.note
    # one request for all known ids; the second time only what was not found is asked
    assert [q.get("id") for _, q, _, _ in server.asked if "id" in q] == ["5660,3514", "3021"]
    server.asked.clear()
    assert update_from_entrez(records, ncbi(server, tmp_path)) == [psap, igkc, h3, clone]
    assert [q["term"] for _, q, _, _ in server.asked] == [
        "AP000769.1[Preferred Symbol] AND 9606[Taxonomy ID]"
    ]


def test_another_gene_is_never_taken(server: Fake, tmp_path: Path) -> None:
    server.answer = eutils
    genes = table(
        known("PSAP", "653509"),  # SFTPA1's id, as in the published knowledge base
        known("LGALS7B", "3963", "galectin 7B"),
        known("LGALS7", "3963", "galectin 7"),
        known("SLC9A3R1", "9368"),
        known("DSC3", "3020", "desmocollin 3"),
        known("GHOST", "19156"),
        known("OLD", "11"),
    )
    names = ("PSAP", "LGALS7B", "LGALS7", "SLC9A3R1", "DSC3", "GHOST", "OLD", "KRT6C", "psap")
    records = [record_from_table(name, genes) for name in (*names, "TWO", "A B[All Fields] OR X")]
    out = update_from_entrez(records, ncbi(server, tmp_path))
    psap, twin, first, renamed, lost, mouse, old, krt6c, lower, two, query = out
    assert psap.text == "PSAP, prosaposin. Makes saposins." and psap.entrez == "5660"
    assert "mismatch: NCBI's record 653509 is SFTPA1, not PSAP" in psap.note
    assert (twin.entrez, twin.text) == ("653499", "LGALS7B, galectin 7B. Its twin.")
    assert first.entrez == "3963" and not first.note  # NCBI settled whose id it is
    assert (renamed.approved, renamed.ensembl) == ("NHERF1", "ENSG-SLC9A3R1")
    assert "NCBI calls SLC9A3R1 NHERF1 now" in renamed.note
    # the wrong record's summary goes, the name of the right gene stays
    assert (lost.text, lost.text_from, lost.entrez) == ("DSC3, desmocollin 3.", "name", "")
    assert "H3-3A, not DSC3" in lost.note and "From the table" in mouse.text + old.text
    assert "no human gene called GHOST" in mouse.note and "no human gene called OLD" in old.note
    assert (krt6c.approved, krt6c.text) == ("", "KRT6C")
    assert krt6c.note.endswith("mismatch: NCBI found KRT6A for KRT6C")
    assert [r.approved for r in (lower, two, query)] == ["", "", ""]
    assert "mismatch" in two.note


def test_nothing_private_is_kept_or_shown(server: Fake, tmp_path: Path) -> None:
    server.answer = eutils
    private = {"email": "me@example.org", "api_key": KEY}
    ncbi(server, tmp_path, **private).fetch_genes(["5660"])
    assert server.asked[0][1]["api_key"] == KEY and server.asked[0][1]["email"] == "me@example.org"
    kept = "".join(file.read_text() for file in tmp_path.iterdir())
    assert "PSAP" in kept and KEY not in kept and "example.org" not in kept
    server.answer = lambda *_: (500, {})
    with pytest.raises(GeneError, match="it answered 500") as told:
        ncbi(server, tmp_path, **private).fetch_genes(["1"])
    assert KEY not in str(told.value)


def test_a_damaged_cache_is_asked_again(server: Fake, tmp_path: Path) -> None:
    server.answer = eutils
    client = ncbi(server, tmp_path)
    wanted = client.fetch_genes(["5660"])
    (file,) = tmp_path.iterdir()
    for damage in ("", "{", '{"answer": 3}', '{"answer": {"entrez": 1}}', "[" * 9999):
        file.write_text(damage)
        assert client.fetch_genes(["5660"]) == wanted
    assert len(server.asked) == 6


@pytest.mark.parametrize(
    "answer",
    [
        (200, b"<html>maintenance</html>"),
        (200, []),
        (200, {"error": "API rate limit exceeded"}),
        (200, {"result": 7}),
        (400, {"error": "Invalid db name"}),
        (302, {}),
    ],
)
def test_odd_answers_are_one_sentence(server: Fake, tmp_path: Path, answer: Any) -> None:
    server.answer = lambda *_: answer
    server.headers = {"Location": f"{server.url}/elsewhere"} if answer[0] == 302 else {}
    with pytest.raises(GeneError, match="NCBI"):
        ncbi(server, tmp_path).fetch_genes(["5660"])
    assert len(server.asked) == 1  # neither repeated nor redirected
    assert not list(tmp_path.iterdir())


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda v: (
            st.lists(v)
            | (
                st.dictionaries(
                    st.sampled_from(["summary", "name", "organism", "taxid", "currentid"]), v
                )
            )
        ),
    )
)
def test_any_entry_is_a_gene_or_none(value: Any) -> None:
    gene = ncbi_gene.parse_human_gene("1", value)
    assert gene is None or gene.symbol


def test_a_busy_or_absent_server(server: Fake, tmp_path: Path) -> None:
    pauses: list[float] = []
    busy = [(429, {"error": "API rate limit exceeded"}), (503, b"")]
    server.headers = {"Retry-After": "7"}
    server.answer = lambda *asked: busy.pop() if busy else eutils(*asked)
    web = JsonClient(requests_per_second=1e6, sleep=pauses.append, timeout_s=5)
    found = EntrezClient(ResponseCache(tmp_path), base_url=server.url, client=web).fetch_genes(
        ["5660"]
    )
    assert found["5660"].symbol == "PSAP" and [p for p in pauses if p > 1] == [7, 7]
    pauses.clear()
    nobody = EntrezClient(ResponseCache(tmp_path), base_url="http://127.0.0.1:9", client=web)
    with pytest.raises(GeneError, match=r"gave no gene records .*check the network.*--tables"):
        nobody.fetch_genes(["1"])
    assert [p for p in pauses if p >= 1] == [1, 2, 4]
    for address in (
        "file:///etc/hosts",
        "ftp://host",
        "host",
        "http://",
        "http://a b",
        "http://[:",
    ):
        with pytest.raises(GeneError, match="not an address"):
            EntrezClient(ResponseCache(tmp_path), base_url=address)


def test_requests_keep_their_distance(server: Fake) -> None:
    server.answer = lambda *_: (200, {})
    now, starts = [0.0], []

    def pause(seconds: float) -> None:
        now[0] += seconds

    web = JsonClient(requests_per_second=3, sleep=pause, clock=lambda: now[0])
    for _ in range(7):
        web.request_json(server.url)
        starts.append(now[0])
    assert all(b - a >= 1 / 3 - 1e-9 for a, b in pairwise(starts))


def test_the_command_line_asks_whom_it_was_told_to(
    server: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    class Encoder:
        spec = TextEncoderSpec("lengths", "", 1)

        def __call__(self, texts: list[str]) -> torch.Tensor:
            return torch.tensor([[float(len(text))] for text in texts])

        def too_long(self, texts: list[str]) -> list[bool]:
            return [False] * len(texts)

    def answer(path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        return (200, chat(GOOD)) if path.startswith("/v1") else eutils(path, query, body)

    server.answer = answer
    monkeypatch.setattr(ncbi_gene, "BASE_URL", server.url)
    monkeypatch.setattr("napari_dkan.model.text_encoders.load_text_encoder", lambda name: Encoder())
    monkeypatch.setenv("NCBI_API_KEY", KEY)
    monkeypatch.setenv("MODEL_KEY", "second-" + KEY)
    out, report, cache = tmp_path / "genes.safetensors", tmp_path / "report.json", tmp_path / "kept"
    words = ["--genes", "PSAP,KRT6C", "--entrez", "--email", "me@example.org", "--cache", cache]
    words += ["--refine", server.url, "--refine-model", "small-llm", "--refine-key", "MODEL_KEY"]
    words += ["-o", out, "--report", report]
    monkeypatch.setattr(sys, "argv", ["napari-dkan", "genes", "build", *map(str, words)])
    with pytest.raises(SystemExit) as exit:
        main()
    told = capsys.readouterr()
    assert not exit.value.code, told.err
    assert "1 with a summary (1 refined)" in told.out
    assert "KRT6C: mismatch: NCBI found KRT6A for KRT6C" in told.out
    psap, krt6c = read_gene_file(out).genes
    assert (psap.text, psap.entrez) == (REFINED, "5660") and krt6c.text == "KRT6C"
    assert json.loads(report.read_text())["mismatches"] == ["KRT6C"]
    written = out.read_bytes() + report.read_bytes() + told.out.encode() + told.err.encode()
    written += b"".join(file.read_bytes() for file in cache.iterdir())
    assert KEY.encode() not in written and b"example.org" not in written


# --- refinement ---------------------------------------------------------------------------------

PSAP = GeneRecord("PSAP", "PSAP", text="PSAP, prosaposin. Long.", text_from="summary", source="t")
GOOD = "**Symbol:** PSAP.\nFunctionality: splits into saposins. Phenotype: Gaucher disease."
REFINED = "Symbol: PSAP. Functionality: splits into saposins. Phenotype: Gaucher disease."


def chat(text: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {"object": "chat.completion", "choices": [{"index": 0, "message": message}]}


def refiner(server: Fake, folder: Path, path: str = "/v1", **more: Any) -> SummaryRefiner:
    return SummaryRefiner(
        server.url + path, "small-llm", ResponseCache(folder), client=quick(max_attempts=1), **more
    )


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/", "/v1/chat/completions"])
def test_a_summary_is_refined_once(server: Fake, tmp_path: Path, path: str) -> None:
    server.answer = lambda *_: (200, chat("<think>hm, PSAP</think>" + GOOD))
    plain = GeneRecord("IGKC", "IGKC", text="IGKC, kappa.", text_from="name")
    out = refiner(server, tmp_path, path, api_key=KEY)([PSAP, plain])
    assert (out[0].text, out[0].text_from) == (REFINED, "refined")
    assert out[0].source == "t, refined by small-llm"
    assert out[1] == plain  # nothing to refine: a model would make something up
    ((asked, _, body, headers),) = server.asked
    assert asked == "/v1/chat/completions" and headers["Authorization"] == f"Bearer {KEY}"
    assert (
        body["model"] == "small-llm" and "PSAP, prosaposin. Long." in body["messages"][1]["content"]
    )
    assert refiner(server, tmp_path, path)([PSAP])[0] == out[0] and len(server.asked) == 1
    assert all(KEY not in file.read_text() for file in tmp_path.iterdir())
    assert KEY not in repr(refiner(server, tmp_path, api_key=KEY))


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((200, chat("Symbol: SFTPA1. Functionality: x. Phenotype: y.")), "about SFTPA1"),
        ((200, chat("Symbol: PSAP. Functionality: x. Phenotype:" + " y" * 130)), "135 words"),
        ((200, chat("I cannot help with that.")), "lacks symbol"),
        ((200, chat(None)), "no chat completion"),
        ((200, {"choices": []}), "no chat completion"),
        ((200, b"oops"), "not JSON"),
        ((401, {"error": {"message": "bad key"}}), "it answered 401"),
    ],
)
def test_a_failure_leaves_the_summary(server: Fake, tmp_path: Path, answer: Any, why: str) -> None:
    server.answer = lambda *_: answer
    (out,) = refiner(server, tmp_path)([PSAP])
    assert (out.text, out.text_from, out.source) == (PSAP.text, "summary", "t")
    assert out.note.startswith("not refined: ") and why in out.note
    assert not list(tmp_path.iterdir())


def test_an_endpoint_that_is_down_is_left_alone(server: Fake, tmp_path: Path) -> None:
    server.answer = lambda *_: (500, {})
    many = [GeneRecord(f"G{i}", f"G{i}", text=f"text {i}", text_from="summary") for i in range(9)]
    out = refiner(server, tmp_path)(many)
    assert len(server.asked) == 3 and all("it answered 500" in r.note for r in out)


def test_models_without_a_temperature(server: Fake, tmp_path: Path) -> None:
    server.answer = lambda _, __, body: (400, {}) if "temperature" in body else (200, chat(GOOD))
    assert refiner(server, tmp_path)([PSAP])[0].text == REFINED


def test_a_key_stays_off_open_wires_and_redirects(server: Fake, tmp_path: Path) -> None:
    with pytest.raises(GeneError, match="unencrypted; give an https"):
        SummaryRefiner("http://models.example.org/v1", "m", ResponseCache(tmp_path), api_key=KEY)
    server.answer = lambda *_: (307, {})
    server.headers = {"Location": f"{server.url}/elsewhere"}
    (out,) = refiner(server, tmp_path, api_key=KEY)([PSAP])
    assert "it answered 307" in out.note and len(server.asked) == 1
