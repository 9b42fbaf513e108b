"""Condense gene summaries with a language model behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from ...errors import GeneError
from .gene_records import GeneRecord
from .json_client import JsonClient, JsonRequestError, ResponseCache, validate_url

MAX_WORDS = 120
MAX_CONSECUTIVE_FAILURES = 3  # after these the endpoint gets no more requests
SYSTEM_PROMPT = f"""\
You condense descriptions of human genes for a text encoder in a pathology tool.
Answer with three labelled parts in one paragraph, under {MAX_WORDS} words in all:
Symbol: the gene's symbol as given.
Functionality: what its product does, where in the cell, in which pathways and cell types.
Phenotype: tissues, diseases and tumours it is tied to.
Take everything from the description. Where it says nothing about a part, write "not stated".
Name no other gene unless the description does. No introduction, no markup, no sources."""
PROMPT_TEMPLATE = "Gene: {symbol}\nDescription: {text}"


@dataclass(frozen=True)
class SummaryRefiner:
    """A language model behind an OpenAI-compatible endpoint, ``/v1/chat/completions``.

    Attributes
    ----------
    url
        The endpoint, with or without that path.
    model
        The name of the model at the endpoint.
    cache
        For responses, by model, prompt and text.
    api_key
        Sent as a bearer token, never stored or shown.
    client
        Replaceable in tests.

    Raises
    ------
    GeneError
        The URL is invalid, or would transmit the key unencrypted to another machine.
    """

    url: str
    model: str
    cache: ResponseCache
    api_key: str = field(default="", repr=False)
    client: JsonClient = field(
        default_factory=lambda: JsonClient(requests_per_second=20, max_attempts=3, timeout_s=120)
    )

    def __post_init__(self) -> None:
        url = validate_url(self.url, "--refine")
        parts = urlsplit(url)
        is_local = parts.hostname in ("localhost", "127.0.0.1", "::1")
        if self.api_key and parts.scheme == "http" and not is_local:
            raise GeneError(f"{url:.80} would be sent the key unencrypted; give an https address.")
        if not parts.path.endswith("/chat/completions"):
            url += "/chat/completions" if parts.path.endswith("/v1") else "/v1/chat/completions"
        object.__setattr__(self, "url", url)

    def __call__(
        self,
        records: Sequence[GeneRecord],
        advance: Callable[[int, int], None] = lambda done, total: None,
    ) -> list[GeneRecord]:
        """Refine the texts of records.

        A record keeps its summary, with a note, if the endpoint fails or its response is invalid.
        Genes without a summary are not refined, since a model could only invent a description.
        """
        refined, failures, reason = [], 0, ""
        for done, record in enumerate(records):
            advance(done, len(records))
            if record.text_from != "summary":
                refined.append(record)
                continue
            if failures < MAX_CONSECUTIVE_FAILURES:
                text, reason = self._refine_text(record)
                # An invalid response concerns only this text, not the endpoint.
                failures = failures + 1 if reason.startswith("the endpoint") else 0
            else:
                text = ""
            source = f"{record.source}, refined by {self.model}"
            refined.append(
                replace(record, text=text, text_from="refined", source=source)
                if text
                else record.with_note(f"not refined: {reason}")
            )
        advance(len(records), len(records))
        return refined

    def _refine_text(self, record: GeneRecord) -> tuple[str, str]:
        """Return the refined text, or "" and why there is none."""
        question = PROMPT_TEMPLATE.format(symbol=record.approved, text=record.text)
        key = ("refine", self.model, SYSTEM_PROMPT, question)
        cached = self.cache.get(*key)
        if isinstance(cached, str) and not _find_fault(cached, record.approved):
            return cached, ""
        messages = [
            {"role": "system", "content": SYSTEM_PROMPT},
            {"role": "user", "content": question},
        ]
        headers = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        body = {"model": self.model, "messages": messages, "temperature": 0}
        try:
            try:
                response = self.client.request_json(self.url, body, headers)
            except JsonRequestError as error:
                if error.status != 400:
                    raise
                del body["temperature"]  # some models accept only their default
                response = self.client.request_json(self.url, body, headers)
            text = _clean_completion(response["choices"][0]["message"]["content"])
        except JsonRequestError as error:
            return "", f"the endpoint failed ({error})"
        except (KeyError, IndexError, TypeError):
            return "", "the endpoint's answer is no chat completion"
        fault = _find_fault(text, record.approved)
        if fault:
            return "", fault
        self.cache.put(text, *key)
        return text, ""


def _clean_completion(text: str) -> str:
    """Return a completion on one line, without reasoning and without bold markup."""
    text = re.sub(r"<think>.*?</think>", "", text, flags=re.DOTALL)
    return " ".join(text.replace("**", "").split())


def _find_fault(text: str, symbol: str) -> str:
    """Describe what is wrong with a refined text, "" if it is valid."""
    words = len(text.split())
    if words >= MAX_WORDS:
        return f"the answer has {words} words"
    parts = re.match(r"Symbol:\s*(\S+?)[.;,]?\s.*?Functionality:.*?Phenotype:", text, re.IGNORECASE)
    if parts is None:
        return "the answer lacks symbol, functionality or phenotype"
    if parts[1] != symbol:
        return f"the answer is about {parts[1][:40]}"
    return ""
