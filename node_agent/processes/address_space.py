"""What one process has mapped, read when it is needed and again when it may have changed."""

import time
from collections.abc import Callable

from node_agent.processes.errors import ProcessError, ProcessGoneError
from node_agent.processes.mappings import Mapping, Mappings, read_mappings

REFRESH_S = 2.0  # doubled, up to MAX_REFRESH_S, each time that nothing had changed
MAX_REFRESH_S = 60.0
STALE_S = 300.0  # a mapping replaced by another at the same address is noticed after this time
_NEVER = float("-inf")


class AddressSpace:
    """The executable mappings of process (tgid, start_ns). Raises nothing: `mappings` is None as
    long as they can't be read, `gone` says that they never will be. `is_excluded` says of a tgid
    whether it must not be read.

    `version` changes whenever what was found before may no longer hold.
    """

    __slots__ = (
        *("gone", "is_excluded", "mappings", "read_at", "refresh_s", "start_ns", "tgid"),
        "version",
    )

    def __init__(
        self, tgid: int, start_ns: int, is_excluded: Callable[[int], bool] | None = None
    ) -> None:
        self.is_excluded = is_excluded
        self.tgid = tgid
        self.start_ns = start_ns
        self.mappings: Mappings | None = None
        self.gone = False
        self.version = 0
        self.read_at = _NEVER
        self.refresh_s = REFRESH_S

    def is_readable(self) -> bool:
        """Whether there are mappings; reads them the first time, and when they are old."""
        now = time.monotonic()
        age_s = now - self.read_at
        if age_s > STALE_S or (self.mappings is None and age_s > REFRESH_S):
            self._read(now)
        return self.mappings is not None

    def refresh(self) -> None:
        """Read the mappings again."""
        self._read(time.monotonic())

    def find(self, address: int) -> Mapping | None:
        """The mapping that holds `address`; call `is_readable` before.

        Looks again when there is none, but not often: without frame pointers many "return
        addresses" are no addresses at all.
        """
        if self.mappings is None:
            return None
        found = self.mappings.find(address)
        if found is None:
            now = time.monotonic()
            if now - self.read_at > self.refresh_s:
                self._read(now)
                found = self.mappings.find(address)
        return found

    def _read(self, now: float) -> None:
        if self.gone:
            return
        self.read_at = now
        try:
            fresh = read_mappings(self.tgid, self.start_ns)
        except ProcessGoneError:
            self.gone = True  # what was read before still holds
            return
        except ProcessError:
            return
        # Afterwards, or it could become one in between.
        if self.is_excluded is not None and self.is_excluded(self.tgid):
            self.gone = True
            return
        if self.mappings is None:
            self.mappings = fresh
        elif self.mappings.is_same(fresh):
            self.refresh_s = min(2 * self.refresh_s, MAX_REFRESH_S)
        else:
            self.mappings = fresh
            self.refresh_s = REFRESH_S
            self.version += 1
