"""Which processes have ended, so that what is remembered of them can go."""

import os
from collections.abc import Iterable

from node_agent.capabilities import OTHER_PROCESSES, using


class EndedProcesses:
    """Tells of an end one look late: samples from just before it may still have to be counted."""

    def __init__(self) -> None:
        self._ended: set[int] = set()

    def look(self, known: Iterable[int]) -> set[int]:
        """Those of the process ids `known` that had ended by the last look and have not been given
        to another process since. Looks at the names in /proc; none when it can't be read."""
        try:
            # /proc may hide other users' processes.
            with using(*OTHER_PROCESSES), os.scandir("/proc") as entries:
                alive = {int(entry.name) for entry in entries if entry.name.isdigit()}
        except OSError:
            return set()
        ended = set(known) - alive
        before, self._ended = self._ended, ended
        return ended & before
