"""Failing children and refusals, with a real spool and real children."""

import os
import time

import pytest

from node_agent.children.runner import Children
from node_agent.processes.mappings import read_mappings, read_start_ticks
from node_agent.sampler import extraction
from node_agent.sampler.extraction import Extractor
from node_agent.spool import Spool
from node_agent.symbols.modules import ModuleRegistry
from wire.codec import decode
from wire.schema import Module, ModuleKind, SymbolExtract

TICK_NS = 10_000_000


@pytest.fixture
def registry() -> ModuleRegistry:
    """Knows the files that this process has mapped."""
    registry = ModuleRegistry()
    pid = os.getpid()
    for mapping in read_mappings(pid, read_start_ticks(pid) * TICK_NS).entries:
        if mapping.inode:
            registry.native_module(pid, mapping)
    return registry


def _native_ids(registry: ModuleRegistry, count: int) -> list[bytes]:
    ids = [m.id for m in registry.modules.values() if m.kind == ModuleKind.NATIVE]
    assert len(ids) >= count
    return ids[:count]


def _finish(extractor: Extractor) -> None:
    deadline = time.monotonic() + 600
    while extractor.pending:
        extractor.step()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _extracts(spool: Spool) -> list[SymbolExtract]:
    extracts = []
    for entry in spool.pending_extracts():
        file = spool.open_extract(entry)
        assert file is not None
        with file:
            extracts.append(decode(file.read(), SymbolExtract))
    return extracts


def test_one_child_serves_all_that_wait(spool: Spool, registry: ModuleRegistry) -> None:
    children = Children()
    extractor = Extractor(spool, registry, "web-1", children)
    ids = _native_ids(registry, 4)
    for build_id in [*ids, *ids]:
        assert extractor.request(ModuleKind.NATIVE, build_id)
    assert extractor.pending == 4  # asked twice is made once
    _finish(extractor)
    assert children.started == 1
    assert extractor.counts == {"made": 4}
    assert {extract.build_id for extract in _extracts(spool)} == set(ids)


def test_a_failing_child_spoils_only_the_module_that_it_fails_on(
    spool: Spool, registry: ModuleRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every child fails here: each time the first module is refused in words."""
    monkeypatch.setattr(extraction, "_CHILD", "node_agent.no_such_module")
    extractor = Extractor(spool, registry, "web-1")
    for build_id in _native_ids(registry, 3):
        extractor.request(ModuleKind.NATIVE, build_id)
    _finish(extractor)
    assert extractor.counts == {"failed": 3}
    assert {extract.refused for extract in _extracts(spool)} == {
        "the reader of the file ended with exit status 1"
    }
    assert not list(spool.root.glob("extracts/.tmp*"))


def test_a_module_without_a_file_is_refused(spool: Spool, registry: ModuleRegistry) -> None:
    registry.add(Module(ModuleKind.NATIVE, b"g" * 20, "ghost"))
    registry.add(Module(ModuleKind.KERNEL_MODULE, b"m" * 20, "no_such_module"))
    extractor = Extractor(spool, registry, "web-1")
    extractor.request(ModuleKind.NATIVE, b"g" * 20)
    extractor.request(ModuleKind.KERNEL_MODULE, b"m" * 20)
    _finish(extractor)
    assert extractor.counts == {"failed": 2}
    assert all(extract.refused.startswith("gone") for extract in _extracts(spool))


def test_what_was_not_seen_is_not_looked_for(spool: Spool, registry: ModuleRegistry) -> None:
    extractor = Extractor(spool, registry, "web-1")
    known = _native_ids(registry, 1)[0]
    assert not extractor.request(ModuleKind.NATIVE, b"x" * 20)
    assert not extractor.request(ModuleKind.KERNEL, known)  # seen, but as another kind
    assert extractor.counts == {"unknown": 2}
    assert extractor.pending == 0


def test_too_many_requests_are_counted(
    spool: Spool, registry: ModuleRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extraction, "MAX_QUEUED", 1)
    extractor = Extractor(spool, registry, "web-1")
    first, second = _native_ids(registry, 2)
    assert extractor.request(ModuleKind.NATIVE, first)
    assert not extractor.request(ModuleKind.NATIVE, second)
    assert extractor.counts == {"queue_full": 1}


def test_closing_ends_a_running_child_and_leaves_no_file(
    spool: Spool, registry: ModuleRegistry
) -> None:
    children = Children()
    extractor = Extractor(spool, registry, "web-1", children)
    extractor.request(ModuleKind.NATIVE, _native_ids(registry, 1)[0])
    extractor.step()
    assert children._child is not None
    pid = children._child.pid
    extractor.close()
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    assert [path.name for path in (spool.root / "extracts").iterdir()] == []
