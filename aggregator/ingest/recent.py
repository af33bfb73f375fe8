"""A bounded cache in two generations: cheaper than strict least-recently-used order."""

from collections.abc import Callable
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """Holds at most `size` entries, each as heavy as `weigh` says, else 1: a size in bytes needs
    it, where entries are as large as a node makes them."""

    def __init__(self, size: int, weigh: Callable[[Value], int] | None = None) -> None:
        self._half = max(1, size // 2)
        self._weigh = weigh
        self._weight = 0  # of the young
        self._young: dict[Key, Value] = {}
        self._old: dict[Key, Value] = {}

    def get(self, key: Key) -> Value | None:
        """The value of `key`, None where it is not (or no longer) here."""
        value = self._young.get(key)
        if value is None and (value := self._old.get(key)) is not None:
            self.put(key, value)
        return value

    def put(self, key: Key, value: Value) -> None:
        """Keep `value`; what was not used for longest goes."""
        if self._weight >= self._half:
            self.age()
        if key not in self._young:
            self._weight += self._weigh(value) if self._weigh else 1
        self._young[key] = value

    def age(self) -> None:
        """Forget the older half."""
        self._old, self._young, self._weight = self._young, {}, 0

    def clear(self) -> None:
        """Forget everything."""
        self._young, self._old, self._weight = {}, {}, 0

    def __len__(self) -> int:
        return len(self._young) + len(self._old)
