"""What nobody foresaw ends where it belongs."""

import io
import os
import struct

import pytest

from node_agent.collectors.stacks import ProcessKey, RawStack
from node_agent.cpython.structs import PythonNameC
from node_agent.faults import Faults
from node_agent.log import Log
from node_agent.normalize import Normalizer
from node_agent.processes import address_space, identity
from node_agent.processes.identity import Identities
from node_agent.processes.mappings import Mapping, Mappings, read_start_ticks
from node_agent.sampler.definitions import DefinitionBook
from node_agent.symbols import modules
from node_agent.symbols.modules import ModuleRegistry
from node_agent.unwind.loading import Loading
from node_agent.unwind.spaces import Kind
from wire.hashes import pack_frame

ERRORS = [
    OverflowError("Python int too large to convert to C long"),
    ValueError("invalid literal"),
    MemoryError(),
    UnicodeError("surrogates not allowed"),
    RecursionError("maximum recursion depth exceeded"),
    OSError(5, "Input/output error"),
    KeyError("nothing"),
    struct.error("argument out of range"),
]
BAD, GOOD = ProcessKey(70, 1, 1), ProcessKey(71, 1, 1)
MAPPED = Mapping(0x1000, 0x9000, 0, 8, 1, 77, b"/bin/program")


class Kernel:
    def frame(self, address: int) -> bytes:
        return pack_frame(1, address)


def raises(error: Exception):
    def work(*_: object) -> None:
        raise error

    return work


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_is_counted_said_and_not_met_again(error: Exception) -> None:
    said, told = io.StringIO(), []
    faults = Faults(Log("run", said, {}), lambda *of: told.append(of))
    tried = []

    for _ in range(3):
        assert faults.contain("file", (70, 1), lambda: tried.append(1) or raises(error)()) is None

    prefix = "struct_" if isinstance(error, struct.error) else ""
    reason = f"file_{prefix}{type(error).__name__}"
    assert tried == [1]
    assert faults.counts == {reason: 1}
    assert said.getvalue().count("\n") == 1
    assert f"reason={reason} at=test_faults.py:" in said.getvalue()
    assert "of process 70" in said.getvalue()
    assert [(told_reason, count) for told_reason, _, count in told] == [(reason, 1)]


def test_what_works_is_not_kept_from_working() -> None:
    faults = Faults(Log("run", io.StringIO(), {}))
    faults.contain("file", (70, 1), raises(ValueError()))

    assert faults.contain("file", (70, 2), lambda: 5) == 5
    assert faults.contain("labels", (70, 1), lambda: 6) == 6
    assert faults.contain("file", (71, 1), lambda: 7) == 7


def test_a_stop_is_no_fault() -> None:
    with pytest.raises(KeyboardInterrupt):
        Faults().contain("file", (1,), raises(KeyboardInterrupt()))  # type: ignore[arg-type]


def test_it_is_tried_again_when_it_was_not_asked_for_or_the_process_ended() -> None:
    faults = Faults(Log("run", io.StringIO(), {}))
    faults.contain("file", (70, 1), raises(ValueError()))
    faults.contain("file", (71, 1), raises(ValueError()))
    faults.contain("rows", ("build",), raises(ValueError()))

    faults.forget_ended({70})
    assert faults.contain("file", (70, 1), lambda: 1) == 1
    assert faults.contain("file", (71, 1), lambda: 1) is None
    faults.rotate()
    faults.rotate()
    assert faults.contain("file", (71, 1), lambda: 1) == 1
    assert faults.contain("rows", ("build",), lambda: 1) == 1


def test_it_is_told_ever_more_seldom() -> None:
    told = []
    faults = Faults(Log("run", io.StringIO(), {}), lambda *of: told.append(of[2]))

    for number in range(1_234):
        faults.contain("file", (number, 1), raises(ValueError()))

    assert faults.counts == {"file_ValueError": 1_234}
    assert told == [1, 10, 100, 1_000]


def test_its_words_are_bounded() -> None:
    said, told = io.StringIO(), []
    faults = Faults(Log("run", said, {}), lambda *of: told.append(of[1]))

    faults.contain("file", (1,), raises(ValueError("\x1b[2J\n" * 100_000)))

    assert len(told[0]) <= 200
    assert len(said.getvalue()) < 1_000
    assert "\x1b" not in said.getvalue()


def raw(process: ProcessKey, address: int = 0x2000, *names: bytes) -> RawStack:
    return RawStack(
        process.tgid, process, "work", 5, (), (address,), False, python_names=tuple(names)
    )


@pytest.fixture
def spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both processes have mapped the same file; looking at that of the bad one fails."""

    def find_mapped(tgid: int, mapping: Mapping) -> int:
        if tgid == BAD.tgid:
            raise OverflowError("Python int too large to convert to C long")
        return os.open("/proc/self/exe", os.O_PATH)

    monkeypatch.setattr(
        address_space, "read_mappings", lambda tgid, start_ns: Mappings.of([MAPPED])
    )
    monkeypatch.setattr(modules, "find_mapped", find_mapped)


def test_a_file_that_cannot_be_identified_has_its_name_only_there(spaces: None) -> None:
    registry = ModuleRegistry(Faults(Log("run", io.StringIO(), {})))
    definitions = DefinitionBook(100)
    normalizer = Normalizer(registry, Kernel(), definitions, 100)

    for _ in range(3):
        bad, good = normalizer.add(raw(BAD)), normalizer.add(raw(GOOD))

    stacks = definitions.take()
    named = registry.named_frame(modules.UNKNOWN, "[program]")
    assert stacks[bad] == named
    assert stacks[good][:8] != named[:8]
    assert registry.faults.counts == {"file_OverflowError": 1}


def test_a_process_that_cannot_be_read_loses_its_own_stacks(
    spaces: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(tgid: int, start_ns: int) -> Mappings:
        if tgid == BAD.tgid:
            raise RecursionError
        return Mappings.of([MAPPED])

    monkeypatch.setattr(address_space, "read_mappings", read)
    registry = ModuleRegistry(Faults(Log("run", io.StringIO(), {})))
    definitions = DefinitionBook(100)
    normalizer = Normalizer(registry, Kernel(), definitions, 100)

    bad, again, good = (normalizer.add(raw(key)) for key in (BAD, BAD, GOOD))

    assert bad == again
    assert definitions.take()[bad] == registry.stack_lost
    assert good != bad
    assert registry.faults.counts == {"stack_RecursionError": 1}
    assert normalizer.counts["stack_lost"] == 2


def test_a_name_that_cannot_be_read_costs_no_other_process(
    spaces: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIVEN names that came with the stack of another process than theirs."""
    registry = ModuleRegistry(Faults(Log("run", io.StringIO(), {})))
    normalizer = Normalizer(registry, Kernel(), DefinitionBook(100), 100)
    monkeypatch.setattr(normalizer.python, "take", raises(UnicodeError()))
    record = bytes(PythonNameC(id=5, first_line=1))

    for _ in range(2):
        hash_of = normalizer.add(raw(GOOD, 0x2000, record))

    assert hash_of != normalizer.lost()
    assert registry.faults.counts == {"name_UnicodeError": 1}


def test_labels_that_cannot_be_read_are_the_threads_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def parse(_text: str) -> None:
        raise IndexError

    monkeypatch.setattr(identity, "parse_cgroup", parse)
    faults = Faults(Log("run", io.StringIO(), {}))
    start_ns = read_start_ticks(os.getpid()) * 10_000_000

    labels = Identities({"team": "a"}, faults=faults).labels(
        (os.getpid(), start_ns, 0), 1, "work", False
    )

    assert labels == {"team": "a", "service": "work", "executable": "work"}
    assert faults.counts == {"labels_IndexError": 1}


def test_a_process_whose_mappings_fail_does_not_hold_up_the_others(spaces: None) -> None:
    def identify(tgid: int, _mapping: Mapping) -> Kind:
        if tgid == BAD.tgid:
            raise ZeroDivisionError
        return Kind.NO_ROWS

    faults = Faults(Log("run", io.StringIO(), {}))
    loading = Loading(
        lambda key: address_space.AddressSpace(key.tgid, key.start_ns), identify, faults
    )
    for key in (BAD, GOOD):
        loading.wait(key)

    assert [found.process for found in loading.read({}, 0.0)] == [GOOD]
    loading.wait(BAD)
    assert loading.read({}, 1.0) == []
    assert faults.counts == {"mappings_ZeroDivisionError": 1}
