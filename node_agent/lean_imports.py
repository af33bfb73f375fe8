"""Keeps what other modules import, and this agent has no use for, out of the resident processes.

`dataclasses` and `urllib.parse` import modules that they use in rare cases only, and those import
more: `inspect` alone brings `ast`, `dis` and `tokenize`. Such a module is put in place, but its
code is run when something of it is first used (the idea of `importlib.util.LazyLoader`, which
imports `threading`, and which cannot refuse). `typing_extensions` is refused: msgspec prefers it
where it is installed, and does without.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

DEFERRED = ("inspect", "ipaddress", "msgspec.inspect")
REFUSED = ("typing_extensions",)


@contextmanager
def lean_imports() -> Iterator[None]:
    """Meanwhile modules of DEFERRED are imported without being run, and those of REFUSED are not
    found. What has been imported already stays as it is."""
    sys.meta_path.insert(0, _Finder)
    try:
        yield
    finally:
        sys.meta_path.remove(_Finder)


class _Finder:
    """See importlib.abc.MetaPathFinder."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name in REFUSED:
            raise ModuleNotFoundError(f"{name} is left out of the agent's processes", name=name)
        if name not in DEFERRED:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Deferring(spec.loader)  # type: ignore[assignment]  # importlib.abc is big
        return spec


class _Deferring:
    """A loader that leaves the work to `loader` for later."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Deferred(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Put the real loader in place; its work is done by _Deferred."""
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._loader


class _Deferred(ModuleType):
    """A module whose code has not been run yet."""

    def __getattr__(self, name: str) -> Any:
        """Called for what is not there: run the code, once, and look again."""
        if name.startswith("__"):  # what the import system asks of a module, found or not
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        self.__class__ = ModuleType  # type: ignore[assignment]  # a subclass without state
        assert self.__spec__ is not None
        self.__spec__.loader.exec_module(self)  # type: ignore[union-attr]  # set by _Deferring
        return getattr(self, name)
