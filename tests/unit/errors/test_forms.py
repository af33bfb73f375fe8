"""The form of every error: a message without a period, and a remedy that can stand behind it.

Goes over all error classes, and over every place in the source that raises one of them.
"""

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import aggregator
import node_agent
from aggregator.errors import AggregatorError
from aggregator.local.errors import LocalError
from node_agent.errors import AgentError
from wire.sentences import sentences

ROOT = Path(aggregator.__file__).parents[1]
PACKAGES = (aggregator, node_agent)
# Run as files or as processes of their own; they define no errors.
NOT_IMPORTED = ("aggregator.local.launch", "node_agent.kernel.bcc_child")


def all_modules() -> None:
    for package in PACKAGES:
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name not in NOT_IMPORTED and not module.name.endswith("__main__"):
                importlib.import_module(module.name)


def below(kind: type[Exception]) -> Iterator[type[Exception]]:
    yield kind
    for narrower in kind.__subclasses__():
        yield from below(narrower)


all_modules()
CENTRE = sorted(set(below(AggregatorError)), key=lambda kind: kind.__qualname__)
AGENT = sorted(set(below(AgentError)), key=lambda kind: kind.__qualname__)
NAMES = {kind.__name__ for kind in (*CENTRE, *AGENT, *below(LocalError))}


def text_of(node: ast.expr | None) -> str | None:
    """The text of a literal, what it inserts as "X"; None for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values
        )
    return None


def made() -> Iterator[tuple[str, list[str], str | None]]:
    """(place, texts of the arguments by position, text of `remedy`) of each error made."""
    for package in PACKAGES:
        for path in sorted(Path(package.__path__[0]).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                    continue
                if node.func.id not in NAMES:
                    continue
                by_name = {word.arg: word.value for word in node.keywords}
                texts = [text_of(argument) or "" for argument in node.args]
                place = f"{path.relative_to(ROOT)}:{node.lineno}"
                yield place, texts, text_of(by_name.get("remedy"))


MADE = list(made())


@pytest.mark.parametrize("kind", CENTRE, ids=lambda kind: kind.__name__)
def test_a_class_of_the_centre_has_a_remedy_that_ends_no_sentence(
    kind: type[AggregatorError],
) -> None:
    assert kind.remedy
    assert kind.remedy == kind.remedy.strip()
    assert not kind.remedy.endswith((".", "!", ","))
    assert "\n" not in kind.remedy


def test_every_place_was_read() -> None:
    assert len(MADE) > 150
    assert any(place.startswith("aggregator/local/") for place, _, _ in MADE)
    assert any(place.startswith("node_agent/") for place, _, _ in MADE)


@pytest.mark.parametrize(("place", "texts", "remedy"), MADE, ids=[place for place, _, _ in MADE])
def test_an_error_has_the_form_in_which_parts_can_be_joined(
    place: str, texts: list[str], remedy: str | None
) -> None:
    ends_sentence = (".", "!")
    is_agents = place.startswith("node_agent/")
    message, *others = texts or [""]
    assert not message.endswith((*ends_sentence, ",", ";", " ")), message
    if is_agents and others and remedy is None:
        remedy = others[-1]
    if remedy is None:
        return
    assert remedy == remedy.strip()
    assert not remedy.endswith((",", ";"))
    if not is_agents:
        assert not remedy.endswith(ends_sentence), remedy


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (("the token was revoked", "run `x`"), "the token was revoked. Run `x`."),
        (("the token was revoked.", "Run it."), "the token was revoked. Run it."),
        (("no room", ""), "no room."),
        (("", "make room"), "make room."),
        (("Who?", "GET /api lists them"), "Who? GET /api lists them."),
        (("query: no", "`x` says more"), "query: no. `x` says more."),
        (("no", "on_demand_max_rate_hz sets it"), "no. on_demand_max_rate_hz sets it."),
        ((), ""),
    ],
)
def test_sentences_are_ended_once(parts: tuple[str, ...], words: str) -> None:
    assert sentences(*parts) == words
