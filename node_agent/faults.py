"""What foreign data does that nobody foresaw: it costs what it belongs to, and nothing else.

Processes, files and orders are made by others. What reads them refuses in words of its own
whatever it knows to be wrong. For the rest there is this boundary, around the work that is done for
one of them: an error is counted by its reason, said, and remembered, so that the same work is not
tried again and again. The sampler goes on with all others.
"""

from collections.abc import Callable, Collection, Hashable
from typing import TypeVar

from node_agent.generations import GenerationCache
from node_agent.log import Log
from wire.limits import MAX_EVENT_WORD_BYTES

MAX_REMEMBERED = 4_096
_MAX_WORDS = 200
T = TypeVar("T")
# What the work is for. That of a process begins with its number, so that it ends with it.
Key = tuple[Hashable, ...]


class Faults:
    """`counts` tells how often, by reason: the kind of work and the class of the error."""

    def __init__(
        self, log: Log | None = None, tell: Callable[[str, str, int], None] | None = None
    ) -> None:
        """`tell` gets reason, words and count of the first, the tenth, the hundredth error of a
        reason, and so on."""
        self.counts: dict[str, int] = {}
        self._log = log or Log("run")
        self._tell = tell
        self._remembered: GenerationCache[tuple[str, Key], bool] = GenerationCache(MAX_REMEMBERED)

    def contain(self, kind: str, key: Key, work: Callable[[], T]) -> T | None:
        """What `work` for `key` gives; None when it fails, or did before."""
        if len(self._remembered) and self._remembered.get((kind, key)):
            return None
        try:
            return work()
        except Exception as error:  # the boundary: whatever it is, it ends here
            self._remembered.put((kind, key), True)
            self._note(kind, key, error)
            return None

    def rotate(self) -> None:
        """Let what was not asked for since the last call be tried again."""
        self._remembered.rotate()

    def forget_ended(self, ended: Collection[int]) -> None:
        """Forget what belongs to the processes of these ids."""
        if ended and len(self._remembered):
            self._remembered.forget(lambda known: known[1][0] in ended)

    def _note(self, kind: str, key: Key, error: Exception) -> None:
        reason = f"{kind}_{_name(error)}"[:MAX_EVENT_WORD_BYTES]
        count = self.counts[reason] = self.counts.get(reason, 0) + 1
        owner = f" of process {key[0]}" if isinstance(key[0], int) else ""
        words = f"the {kind}{owner} is left out, it cannot be read: {error!r}"[:_MAX_WORDS]
        self._log.warning("fault", words, reason=reason, at=_place(error))
        if self._tell is not None and count == 10 ** (len(str(count)) - 1):
            self._tell(reason, words, count)


def _name(error: Exception) -> str:
    """That of its class, with the module where it is none of Python's own: struct_error."""
    kind = type(error)
    module = kind.__module__.rpartition(".")[2]
    return kind.__name__ if module == "builtins" else f"{module}_{kind.__name__}"


def _place(error: Exception) -> str:
    """File and line that raised it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return ""
    return f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}"
