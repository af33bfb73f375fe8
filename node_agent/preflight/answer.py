"""What a check answers."""

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple


class State(str, Enum):
    """How a check ended. A refused one makes profiling impossible."""

    OK = "ok"
    DEGRADED = "degraded"
    REFUSED = "refused"
    MISSING = "missing"  # of the production checklist only


class Check(NamedTuple):
    """One line of the answer. `remedy` is a command or a sentence, empty when all is well."""

    name: str
    state: State
    why: str
    remedy: str = ""


def is_possible(checks: Sequence[Check]) -> bool:
    """Whether the host can be profiled at all."""
    return all(check.state is not State.REFUSED for check in checks)
