"""Every link in the documents leads to a file, and to a heading of it."""

import re
from pathlib import Path

import pytest

from tests.support.documents import DOCS, ROOT, anchors

DOCUMENTS = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
_LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path: Path) -> None:
    for link in _LINK.finditer(path.read_text()):
        target, _, anchor = link["target"].partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        file = (path.parent / target).resolve() if target else path
        assert file.exists(), link["target"]
        if anchor:
            assert anchor in anchors(file.read_text()), link["target"]
