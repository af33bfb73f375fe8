"""A bounded cache that forgets what was not used lately: two generations of a dict.

An exact LRU costs a list operation on every look-up. Here a look-up costs one dict access; when
the young generation is full (or by `rotate`) it becomes the old one, and what the old one still
held unused is forgotten. Holds between `limit / 2` and `limit` entries once it is full.
"""

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class GenerationCache(Generic[K, V]):
    """See the module's docstring. `forgotten` counts entries that left without being removed."""

    __slots__ = ("_half", "_old", "_young", "forgotten")

    def __init__(self, limit: int) -> None:
        self._half = max(1, limit // 2)
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}
        self.forgotten = 0

    def get(self, key: K) -> V | None:
        """The value, which counts as used now, or None."""
        value = self._young.get(key)
        if value is None:
            value = self._old.pop(key, None)
            if value is not None:
                self.put(key, value)
        return value

    def put(self, key: K, value: V) -> None:
        """Store `value`, which must not be None."""
        if self.is_full and key not in self._young:
            self.rotate()
        self._old.pop(key, None)
        self._young[key] = value

    def remove(self, key: K) -> None:
        """Forget `key` if it is known."""
        self._young.pop(key, None)
        self._old.pop(key, None)

    @property
    def is_full(self) -> bool:
        """Whether the next new key will make it forget the old generation."""
        return len(self._young) >= self._half

    def rotate(self) -> None:
        """Forget what was not used since the last rotation."""
        self.forgotten += len(self._old)
        self._old = self._young
        self._young = {}

    def aged(self) -> Iterator[K]:
        """What the next rotation forgets, unless it is used before."""
        return iter(self._old)

    def forget(self, is_gone: Callable[[K], bool]) -> None:
        """Forget every key of which that is true. Makes new tables, as a dict never shrinks."""
        self._young = {key: value for key, value in self._young.items() if not is_gone(key)}
        self._old = {key: value for key, value in self._old.items() if not is_gone(key)}

    def keys(self) -> Iterator[K]:
        """All keys; the cache must not change meanwhile."""
        return chain(self._young, self._old)

    def values(self) -> Iterator[V]:
        """All values; the cache must not change meanwhile."""
        return chain(self._young.values(), self._old.values())

    def __len__(self) -> int:
        return len(self._young) + len(self._old)
