"""What the documentation site takes from the repository: navigation, API pages, equations.

A hook of MkDocs (``mkdocs.yml``). The navigation is what ``docs/README.md`` lists, so a page that
is listed there is in it. Every room of the package has an API page, made from its sources.
"""

from __future__ import annotations

import html
import logging
import os.path
import re
from pathlib import Path
from typing import TYPE_CHECKING

from latex2mathml.converter import convert
from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "napari_dkan"
NOT_SHOWN = {"viewer", "cli"}  # panels and commands: the pages on using them tell more
PROJECT = {"Contributing": "CONTRIBUTING.md", "Changes": "CHANGELOG.md"}

LINK = re.compile(r"(?<=\]\()[^)\s#]+")
SECTION = re.compile(r"^## (.+)$", re.MULTILINE)
ROW = re.compile(r"^(?:\||[-*]) \[([^\]]+)\]\(([^)#]+\.md)\)", re.MULTILINE)
EQUATION = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
# Browsers draw only part of MathML's letter forms; a long line would stand out of the page.
STYLE = """\
math [mathvariant^="bold"] { font-weight: bold }
math { max-width: 100%; overflow-x: auto }
"""

log = logging.getLogger("mkdocs.hooks.docs_site")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Lay out the navigation."""
    config.nav = [
        {"Documentation": "README.md"},
        {"Tutorial": "tutorial.md"},
        *sections((ROOT / "docs" / "README.md").read_text(encoding="utf-8")),
        {"API": [{name.title(): f"api/{name}.md"} for name in api_pages()]},
        {"Project": [{title: name} for title, name in PROJECT.items()]},
    ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are no files of ``docs/``."""
    for name, text in api_pages().items():
        files.append(File.generated(config, f"api/{name}.md", content=text))
    for name in PROJECT.values():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    files.append(File.generated(config, "assets/equations.css", content=STYLE))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to what is not in the site lead to the repository."""
    name = page.file.src_uri
    folder = "" if name in PROJECT.values() else os.path.dirname(f"docs/{name}")

    def led(match: re.Match[str]) -> str:
        link = match[0]
        if ":" in link:
            return link
        place = os.path.normpath(os.path.join(folder, link)).replace(os.sep, "/")
        if place in PROJECT.values() or place.startswith("docs/"):
            return os.path.relpath(place.removeprefix("docs/"), os.path.dirname(name) or ".")
        if not (ROOT / place).exists():
            log.warning("%s links to %s, which does not exist", name, link)
        return f"{config.extra['source']}{place}"

    return LINK.sub(led, markdown)


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Equations become MathML, which browsers draw by themselves."""

    def drawn(match: re.Match[str]) -> str:
        latex = html.unescape(match[3]).strip()
        known = latex.replace("{aligned}", "{split}")  # the same, under the name it knows
        mathml = convert(known, display="block" if match[2] == "[" else "inline")
        if "\\" in html.unescape(mathml) or "<mi>&<" in mathml:  # what it does not know stays
            log.warning("%s has an equation that cannot be drawn: %s", page.file.src_uri, latex)
        return mathml

    return EQUATION.sub(drawn, content)


def sections(index: str) -> list[dict[str, list[dict[str, str]]]]:
    """The headings of the index, each with the pages listed below it."""
    _, *parts = SECTION.split(index)
    return [
        {title: [{name: target} for name, target in ROW.findall(text)]}
        for title, text in zip(parts[::2], parts[1::2], strict=True)
    ]


def api_pages() -> dict[str, str]:
    """Markdown of the API pages by name: one for each room, one for the modules beside them."""
    rooms = sorted(f.parent.name for f in PACKAGE.glob("*/__init__.py"))
    modules = sorted(f.stem for f in PACKAGE.glob("[!_]*.py"))
    pages = {r: f"::: napari_dkan.{r}\n" for r in rooms if r not in NOT_SHOWN}
    beside = [f"::: napari_dkan.{m}\n" for m in modules if m not in NOT_SHOWN]
    shared = "\n".join(f"{m}    options:\n      heading_level: 2\n" for m in beside)
    return {**pages, "shared": f"# What all rooms share\n\n{shared}"}
