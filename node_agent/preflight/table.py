"""The checks as a table for people, within 80 columns. Pure."""

from collections.abc import Sequence

from node_agent.preflight.answer import Check, State, is_possible
from node_agent.preflight.production import missing
from wire.called_as import as_called

WIDTH = 80
_STATE_WIDTH = max(len(state.value) for state in State)
_COLOURS = {State.OK: "32", State.DEGRADED: "33", State.REFUSED: "1;31", State.MISSING: "1;31"}


def render(checks: Sequence[Check], *, colour: bool = False) -> str:
    """One line a check (more where words need it), the remedy under it, and the sum."""
    return "\n".join([*_rows(checks, colour), "", summary(checks)])


def render_production(checks: Sequence[Check], *, colour: bool = False) -> str:
    """The same for the production checklist."""
    lacking = missing(checks)
    last = "Ready for production."
    if lacking:
        last = f"Not ready for production, missing: {', '.join(lacking)}."
    return "\n".join(["Production", *_rows(checks, colour), "", *wrap(last, WIDTH)])


def _rows(checks: Sequence[Check], colour: bool) -> list[str]:
    name_width = max(len(check.name) for check in checks)
    indent = name_width + 2 + _STATE_WIDTH + 2
    lines = []
    for check in checks:
        state = check.state.value.ljust(_STATE_WIDTH)
        if colour:
            state = f"\x1b[{_COLOURS[check.state]}m{state}\x1b[0m"
        first, *more = wrap(check.why, WIDTH - indent)
        lines.append(f"{check.name.ljust(name_width)}  {state}  {first}")
        lines += [" " * indent + line for line in more]
        if check.remedy:
            lines += [" " * indent + line for line in mend(as_called(check.remedy), WIDTH - indent)]
    return lines


def summary(checks: Sequence[Check]) -> str:
    """One sentence."""
    counts = {state: sum(check.state is state for check in checks) for state in State}
    if not is_possible(checks):
        number = counts[State.REFUSED]
        return f"Profiling is impossible here: {number} of {len(checks)} checks refused."
    if counts[State.DEGRADED]:
        return f"This host can be profiled; {counts[State.DEGRADED]} of {len(checks)} degraded."
    return "This host can be profiled."


def mend(remedy: str, width: int) -> list[str]:
    """The remedy, marked by an arrow and aligned behind it."""
    first, *more = wrap(remedy, width - 3)
    return [f"-> {first}", *(f"   {line}" for line in more)]


def wrap(text: str, width: int) -> list[str]:
    """`text` in lines of at most `width` (a longer word stays whole); never empty."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return lines
