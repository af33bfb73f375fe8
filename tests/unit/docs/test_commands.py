"""Every command that README and docs show is one that the programs take, and its reader is told
where the programs are."""

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from aggregator.cli import build_parser
from node_agent.arguments import parse

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = ("flamefleet", "flamefleet-agent")
_BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`(?:sudo )?(?:\.venv/bin/)?((?:flamefleet-agent|flamefleet) [a-z][^`]*)`")


def in_blocks(page: Path) -> Iterator[str]:
    for block in _BLOCK.findall(page.read_text()):
        for line in block.splitlines():
            command = re.sub(r"^export \w+=\$\((.*?)\)", r"\1", line.partition("#")[0].strip())
            if command.startswith(PROGRAMS):
                yield command.replace("[--json]", "--json")


def commands_of(subparsers: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in subparsers._actions:  # argparse has no public list
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


SHOWN = [(page.name, command) for page in PAGES for command in in_blocks(page)]
NAMED = [(page.name, text) for page in PAGES for text in _INLINE.findall(page.read_text())]


@pytest.mark.parametrize(("page", "command"), SHOWN)
def test_a_command_in_a_block_is_taken_as_it_stands(page: str, command: str) -> None:
    program, *arguments = shlex.split(command)
    if program == "flamefleet":
        build_parser().parse_args(arguments)
    else:
        parse(arguments)


@pytest.mark.parametrize(("page", "text"), NAMED)
def test_a_command_in_a_sentence_exists(page: str, text: str) -> None:
    program, name, *more = text.replace("\n", " ").split()
    if program == "flamefleet-agent":
        with pytest.raises(SystemExit) as caught:
            parse([name, "--help"])
        assert caught.value.code == 0
        return
    known = commands_of(build_parser())
    assert name in known
    actions = commands_of(known[name])
    if actions and more and not more[0].startswith("-"):
        assert more[0] in actions


def test_commands_were_found() -> None:
    assert len(SHOWN) >= 6
    assert len(NAMED) >= 15


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_with_commands_says_where_they_are(page: Path) -> None:
    if page.name == "README.md":
        assert "## The two commands" in page.read_text()
    elif list(in_blocks(page)):
        assert "README.md#the-two-commands" in page.read_text()
