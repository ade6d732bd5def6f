"""The documents of docs/ as tests read them: sections, tables and examples."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["DOCS", "ROOT", "Example", "anchors", "examples", "sections", "table"]

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

_FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^(?P<level>#+) (?P<title>.+)$", re.MULTILINE)


class Example(NamedTuple):
    """A JSON block: the message it is an example of, and its text."""

    message: str
    text: str


def examples(document: str) -> Iterator[Example]:
    """Yield the blocks whose info string is `json` and the name of a message."""
    for fence in _FENCE.finditer(document):
        language, _, message = fence["info"].partition(" ")
        if language == "json":
            yield Example(message, fence["body"])


def sections(document: str) -> dict[str, str]:
    """Return what stands under each heading, up to the next one; titles without backticks."""
    prose = _FENCE.sub("", document)
    headings = list(_HEADING.finditer(prose))
    ends = [heading.start() for heading in headings[1:]] + [len(prose)]
    return {
        heading["title"].replace("`", ""): prose[heading.end() : end]
        for heading, end in zip(headings, ends, strict=True)
    }


def table(section: str) -> list[list[str]]:
    """Return the rows of a section's tables, cell by cell, without the headers."""
    lines = [line for line in section.splitlines() if line.startswith("|")]
    rules = {number for number, line in enumerate(lines) if not line.strip("|-: ")}
    body = [
        line for number, line in enumerate(lines) if number not in rules and number + 1 not in rules
    ]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in body]


def anchors(document: str) -> set[str]:
    """Return the anchors that GitHub gives to the headings."""
    titles = (heading["title"] for heading in _HEADING.finditer(_FENCE.sub("", document)))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
