"""Following a profile from a shell: polls the centre, says how far it is, cancels on Ctrl-C."""

import time
from collections.abc import Mapping
from typing import Any, TextIO

from aggregator.client import Centre, CentreError
from aggregator.on_demand.progress import ACTIVE

POLL_S = 1.0
PATIENCE_S = 120.0  # with a centre that is away or fails: it may be starting again
NAMES_WAIT_S = 20.0  # for stacks whose frames the centre asks for when it has seen them first


class Follower:
    """Follows one profile; what it says goes to `stream`, on a terminal in one line."""

    def __init__(self, centre: Centre, stream: TextIO, poll_s: float = POLL_S) -> None:
        self.was_interrupted = False
        self._centre = centre
        self._stream = stream
        self._poll_s = poll_s
        self._is_live = stream.isatty()
        self._width = 0
        self._said = ""

    def follow(self, known: dict[str, Any]) -> dict[str, Any]:
        """What is known of the profile in the end; `known` is the answer to asking for it. The
        first KeyboardInterrupt cancels it, the second is raised."""
        silent_since_s = None
        while known["state"] in ACTIVE:
            try:
                self._say(known)
                time.sleep(self._poll_s)
                known = self._centre.ask_json("GET", known["url"])
                silent_since_s = None
            except KeyboardInterrupt:
                if self.was_interrupted:
                    raise
                self.was_interrupted = True
                known = self._centre.ask_json("DELETE", known["url"])
            except CentreError as error:
                silent_since_s = silent_since_s or time.monotonic()
                is_passing = error.answered == 0 or error.answered >= 500
                if not is_passing or time.monotonic() - silent_since_s > PATIENCE_S:
                    raise
                known = {**known, "reason": f"{error.message}; trying again"}
        self._say(known)
        return known

    def _say(self, known: Mapping[str, Any]) -> None:
        line = progress_line(known)
        if self._is_live:
            self._stream.write("\r" + line.ljust(self._width))
            self._width = len(line)
            if known["state"] not in ACTIVE:
                self._stream.write("\n")
        else:
            heading = f"{known['state']} {known['reason']}"
            if heading != self._said:
                self._stream.write(line + "\n")
            self._said = heading
        self._stream.flush()


def progress_line(known: Mapping[str, Any]) -> str:
    """One line about a profile as the API describes it. Pure."""
    parts = [f"profile {known['id']} of {known['node']}: {known['state']}"]
    if known["reason"]:
        parts.append(known["reason"])
    if known["begun_at"] is not None:
        rate_hz = known["effective_rate_hz"] or known["asked_rate_hz"]
        parts += [f"{rate_hz:g} Hz", f"{known['samples']} samples"]
    if known["lost_samples"]:
        parts.append(f"{known['lost_samples']} lost")
    if known["seconds_left"] is not None:
        parts.append(f"{known['seconds_left']:.0f} s left")
    return ", ".join(parts)


def named_flamegraph(centre: Centre, span: Mapping[str, str]) -> dict[str, Any]:
    """The columnar flamegraph of a span, once every stack is defined, or after NAMES_WAIT_S."""
    limit_s = time.monotonic() + NAMES_WAIT_S
    while True:
        answer = centre.ask_json("GET", "/api/v1/flamegraph", span)
        is_named = not answer["coverage"]["undefined_stacks"]
        if is_named or time.monotonic() >= limit_s:
            return answer
        time.sleep(POLL_S)


def top_functions(answer: Mapping[str, Any], most: int) -> list[tuple[str, int]]:
    """The functions of a columnar flamegraph with most time of their own: name, nanoseconds.
    Addresses without a name are one a module. Pure."""
    strings, functions = answer["strings"], answer["functions"]
    columns = ("name", "module", "file", "kind", "group", "members", "self")
    found = []
    for name, module, file, kind, group, members, self_ns in zip(
        *(functions[column] for column in columns), strict=True
    ):
        if not self_ns or group >= 0 or answer["kinds"][kind] in ("process", "other"):
            continue
        text, where = strings[name], [strings[file], strings[module]]
        if members:
            text, where = f"{members} without a name", [strings[module]]
        where = [part for part in where if part and part not in text]
        found.append((f"{text} ({', '.join(where)})" if where else text, self_ns))
    return sorted(found, key=lambda one: -one[1])[: max(most, 0)]
