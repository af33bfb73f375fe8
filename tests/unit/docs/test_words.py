"""Sentences of README, docs and changelog begin with their subject, no clause in its place."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Of a line, a cell or an entry, or behind the end of a sentence. A heading is none.
_BEGINS = re.compile(
    r"(?:^|[.:!?]\s+|[|] |^\s*- |\*\*)(?:What|Whatever|Who|Whoever|Those) \w+",
    re.MULTILINE,
)
_OTHER = re.compile(r"^```.*?^```|^#.*?$", re.MULTILINE | re.DOTALL)


def subjectless(text: str) -> list[str]:
    return [found.group().strip() for found in _BEGINS.finditer(_OTHER.sub("", text))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_sentence_begins_with_a_clause_as_its_subject(page: Path) -> None:
    assert subjectless(page.read_text()) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It is so. What is left\nis lost.", ["What is"]),
        ("# 21: What the agent keeps", []),
        ("- Who was sampled", ["Who was"]),
        ("| a | Whatever fits |", ["Whatever fits"]),
        ("the agent tells what it knows; those who ask get it", []),
        ("```sh\nWhat is it\n```\n", []),
    ],
)
def test_such_a_sentence_is_found(text: str, found: list[str]) -> None:
    assert [words.lstrip(".:|-# 0123456789") for words in subjectless(text)] == found
