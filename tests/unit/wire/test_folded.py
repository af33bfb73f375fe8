"""Names come back from folded lines as they were, through the readers that people use."""

import re
import subprocess
from urllib.parse import unquote

import pytest

from wire.folded import encode_folded, escape
from wire.pprof import Frame, Line

NAMES = [
    *["worker 7", "worker 7.5", "worker 7.", "worker  12", "kworker/0:1 3", "7", "a 1 b", "a\t7"],
    *["db;1", "two\nlines", "cr\rlf\r\n", "nul\0", "sep\u2028arated", "next\x85line", "\x1b[31m"],
    *[
        "100%",
        "%",
        "%41",
        "50%25",
        "a%3Bb",
        "% 7",
        "%e2%82%ac",
        "vector<int, A>::f(int) const",
    ],
    *[
        " leading",
        "trailing ",
        "  ",
        "tab\t",
        "\u00a0nbsp 7",
        "thread\u00a07",
        "ünï 9",
        "名前 1",
        "#x",
    ],
    *["(anonymous namespace)::f", "lambda [clone .cold.12]", "a::operator()", "7 up", "-1", "x -1"],
]
# flamegraph.pl's own lines for a stack and its counts
READER = r"""
use strict; use warnings;
while (<>) {
    chomp;
    my ($stack, $samples) = (/^(.*)\s+?(\d+(?:\.\d*)?)$/);
    my $samples2 = undef;
    if ($stack =~ /^(.*)\s+?(\d+(?:\.\d*)?)$/) {
        $samples2 = $samples;
        ($stack, $samples) = $stack =~ (/^(.*)\s+?(\d+(?:\.\d*)?)$/);
    }
    print join("\t", $stack, $samples, defined $samples2 ? $samples2 : "none"), "\n";
}
"""


def lines_of(names: list[str]) -> list[str]:
    """A line for each name as a leaf below itself, in the order of the names."""
    return [encode_folded([((Frame("root"), Frame(n), Frame(n)), 42, {})]) for n in names]


def test_flamegraph_pl_finds_every_name_and_one_count() -> None:
    text = "".join(lines_of(NAMES))
    read = subprocess.run(
        ["perl", "-e", READER], input=text.encode(), capture_output=True, check=True
    ).stdout.decode()
    assert len(read.split("\n")) == len(NAMES) + 1
    for name, line in zip(NAMES, read.split("\n"), strict=False):
        stack, samples, second = line.split("\t")
        assert [unquote(frame) for frame in stack.split(";")] == ["root", name, name]
        assert (samples, second) == ("42", "none")


@pytest.mark.parametrize("expression", [r"^(.*) (\d+)$", r"^(.*?)\s+(\d+)$"])
def test_readers_with_other_expressions_and_pythons_lines_do_too(expression: str) -> None:
    for name, text in zip(NAMES, lines_of(NAMES), strict=True):
        [line] = text.splitlines()
        found = re.match(expression, line)
        assert found is not None
        assert [unquote(frame) for frame in found[1].split(";")] == ["root", name, name]
        assert found[2] == "42"


@pytest.mark.parametrize(
    ("name", "written"),
    [
        *[("worker 7", "worker%207"), ("db;1", "db%3B1"), ("100%", "100%"), ("%41", "%2541")],
        *[("a b", "a b"), ("operator new(unsigned long)", "operator new(unsigned long)")],
        *[("two\nlines", "two%0Alines"), ("名前", "名前"), ("f(int) const", "f(int) const")],
    ],
)
def test_only_what_has_a_meaning_is_escaped(name: str, written: str) -> None:
    assert escape(name) == written


def test_names_that_were_different_stay_different() -> None:
    frames = [Frame(name) for name in ("db;1", "db:1", "db%3B1", "worker 7", "worker")]
    text = encode_folded([((frame,), 1, {}) for frame in frames])
    assert len(text.splitlines()) == len(frames)


def test_functions_that_were_inlined_are_escaped_too() -> None:
    frame = Frame("inner 2", callers=(Line("outer;1"),))
    assert encode_folded([((frame,), 3, {})]) == "outer%3B1;inner%202 3\n"
