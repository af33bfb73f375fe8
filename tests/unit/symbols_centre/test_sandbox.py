"""The child that reads extracts: what it answers, and that it cannot take the worker with it."""

import pytest

from aggregator.symbols import sandbox
from aggregator.symbols.errors import RefusedExtractError
from aggregator.symbols.sandbox import Request, parse
from wire.codec import encode
from wire.pprof import Line
from wire.schema import ModuleKind, SymbolExtract


def request(kind: ModuleKind, data: bytes, *offsets: int) -> Request:
    extract = SymbolExtract(node="n", module_kind=kind, build_id=b"\1" * 20, name="m", data=data)
    return Request(kind, b"\1" * 20, encode(extract), ready=False, offsets=list(offsets))


def test_what_the_first_answer_holds_serves_later_questions() -> None:
    first = parse(request(ModuleKind.KERNEL, b"0 _stext\n10 schedule\n", 0x12, 1 << 40))
    assert first.places == [[Line("schedule")], []]
    again = Request(ModuleKind.KERNEL, b"\1" * 20, first.data, ready=True, offsets=[5])
    assert parse(again).places == [[Line("_stext")]]


@pytest.mark.parametrize(
    ("kind", "data", "words"),
    [
        (ModuleKind.NATIVE, b"\x7fELF", "not an ELF file"),
        (ModuleKind.KERNEL, b"nonsense", "line 1"),
        (ModuleKind.KERNEL_MODULE, b"", "no symbol"),
    ],
)
def test_hostile_extracts_are_refused_with_the_reason(
    kind: ModuleKind, data: bytes, words: str
) -> None:
    with pytest.raises(RefusedExtractError, match=words):
        parse(request(kind, data))


def test_a_message_that_is_no_extract_is_refused() -> None:
    with pytest.raises(RefusedExtractError, match="not a Flamefleet message"):
        parse(Request(0, b"", b"nonsense", ready=False, offsets=[]))


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("import os; os.abort()", "crashed with SIGABRT"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crashed with SIGSEGV"),
        ("raise ValueError('oh no')", "failed: ValueError: oh no"),
        ("print('nonsense')", "answered nonsense"),
        ("import sys; sys.stdout.buffer.write(b'\\x80')", "another number of frames"),
        ("import time; time.sleep(60)", "took longer"),
        # The real child, with less memory than the text needs, and with no time at all.
        (
            "from aggregator.symbols import parser; parser.MOST_MEMORY_BYTES = 300 << 20;"
            "parser.main()",
            "memory|MemoryError|SIGABRT",
        ),
        (
            "from aggregator.symbols import parser; parser.MOST_CPU_S = 0; parser.main()",
            "CPU or was killed",
        ),
    ],
)
def test_however_the_child_ends_it_is_a_refusal(
    monkeypatch: pytest.MonkeyPatch, program: str, words: str
) -> None:
    monkeypatch.setattr(sandbox, "_ARGUMENTS", ("-I", "-c", program))
    if words == "took longer":
        monkeypatch.setattr(sandbox, "_WALL_TIME_S", 5)
    with pytest.raises(RefusedExtractError, match=words):
        parse(request(ModuleKind.KERNEL, b"".join(b"%x a\n" % i for i in range(1_500_000)), 1))
