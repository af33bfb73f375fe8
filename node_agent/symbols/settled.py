"""Files that need no look each time: those of the distribution, which are replaced, never written
to. Remembered for half a minute by what a maps file says of them.

Only of processes of our own user namespace, and within one mount namespace: whoever may mount what
they like can put another file of the same number and name into the place.
"""

import time
from typing import NamedTuple

from node_agent.processes.mappings import Mapping
from node_agent.processes.mounts import place_of

_FOLDERS = (b"/usr/", b"/lib")
_REMEMBERED_S = 30.0
_MAX_FILES = 4_096


class SettledKey(NamedTuple):
    """A file as the processes of a mount namespace have it mapped."""

    namespace: int
    major: int
    minor: int
    inode: int
    path: bytes


class SettledFiles:
    """Hashes of modules by key."""

    def __init__(self) -> None:
        self._known: dict[SettledKey, tuple[float, int]] = {}

    def get(self, key: SettledKey) -> int | None:
        """What was put there lately."""
        at_s, hash64 = self._known.get(key, (0.0, None))
        return hash64 if time.monotonic() - at_s <= _REMEMBERED_S else None

    def put(self, key: SettledKey, hash64: int) -> None:
        """Remember it from now on."""
        if len(self._known) >= _MAX_FILES:
            self._known.clear()
        self._known[key] = time.monotonic(), hash64

    def sweep(self) -> None:
        """Forget what is too old."""
        now_s = time.monotonic()
        self._known = {
            key: seen for key, seen in self._known.items() if now_s - seen[0] <= _REMEMBERED_S
        }


def settled_key(tgid: int, mapping: Mapping) -> SettledKey | None:
    """The key of a mapped file; None for one that is looked at each time."""
    if not mapping.path.startswith(_FOLDERS) or mapping.deleted:
        return None
    place = place_of(tgid)
    if place is None or place.has_own_users:
        return None
    return SettledKey(place.namespace, mapping.major, mapping.minor, mapping.inode, mapping.path)
