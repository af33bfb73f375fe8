"""Names of others in a terminal and in logs."""

import io
import logging

import pytest

from aggregator.local.progress import Progress
from aggregator.log import make_safe
from node_agent.cli import _render
from node_agent.commands.check import _for_terminal
from node_agent.errors import AgentError
from node_agent.preflight import Check
from node_agent.preflight.answer import State
from wire.folded import encode_folded
from wire.pprof import Frame
from wire.terminal import printable, printable_line

HOSTILE = [
    "\x1b[2J\x1b[1;1H",
    "\x1b]0;title\x07",
    "\x9b31m",
    "\r\x08\x7f\x00",
    "\u202egnp.exe",
    "\u2066\u2069\u200f\ufeff",
    "\u2028\u2029\x85\x0b\x0c",
    "\udcff",
    "\U000e0041",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_of_a_hostile_name_reaches_a_terminal(name):
    line = printable_line(f"a{name}b\nnext")
    assert line.isprintable()
    assert (line[0], line[-7:]) == ("a", "b\\nnext")
    assert printable(f"a{name}b\nnext").endswith("b\nnext")
    line.encode()  # a lone surrogate could not be written


@pytest.mark.parametrize("name", ["", "web-1", "größe", "数据库", "std::vector<int>", "a\\b", "🔥"])
def test_names_stay_as_they_are(name):
    assert printable(name) == printable_line(name) == name


@pytest.mark.parametrize("name", HOSTILE)
def test_each_edge_escapes(name):
    stream = io.StringIO()
    progress = Progress(stream)
    with progress.step(f"step {name}"):
        progress.say(f"said {name}")
    logger = logging.Logger("test")
    logger.addHandler(logging.StreamHandler(stream))
    make_safe(logger)
    logger.warning("node %s", name)
    try:
        raise ValueError(name)
    except ValueError:
        logger.exception("failed")
    stream.write(encode_folded([((Frame(name),), 1, {})]))
    [check] = _for_terminal([Check("kernel", State.OK, name, name)])
    stream.write(check.why + check.remedy)
    stream.write(printable(_render("run", AgentError(name, name))))
    assert stream.getvalue().replace("\n", "").isprintable()


def test_a_name_cannot_look_like_a_line_of_the_log():
    stream = io.StringIO()
    logger = logging.Logger("test")
    logger.addHandler(logging.StreamHandler(stream))
    make_safe(logger)
    logger.warning("node %s", "x\n2026-01-01 ERROR aggregator: all is lost")
    assert len(stream.getvalue().splitlines()) == 1
