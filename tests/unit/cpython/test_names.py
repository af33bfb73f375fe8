"""Names of code objects as the kernel program sends them."""

import pytest

from node_agent.cpython import names as module
from node_agent.cpython.names import (
    CUT,
    PYTHON,
    PythonNames,
    decode_name,
    decode_text,
    is_same_function,
)
from node_agent.cpython.structs import (
    PYTHON_FILE_BYTES,
    PYTHON_NAME_BYTES,
    PythonNameC,
)
from node_agent.symbols.modules import JIT, ModuleRegistry
from wire.hashes import module_hash, name_hash, pack_frame
from wire.schema import Name


def record(
    id64: int = 7,
    name: bytes = b"main",
    file: bytes = b"/a.py",
    widths: tuple[int, int] = (1, 1),
    chars: tuple[int, int] | None = None,
) -> bytes:
    counts = chars or (len(name) // (widths[0] or 1), len(file) // (widths[1] or 1))
    return bytes(PythonNameC(0, id64, 12, *counts, *widths, (0, 0), name, file))


@pytest.mark.parametrize(
    ("data", "chars", "width", "text"),
    [
        (b"main\0\0\0\0", 4, 1, "main"),
        ("größe".encode("latin-1"), 5, 1, "größe"),
        ("функция".encode("utf-16-le") + b"\0\0", 7, 2, "функция"),
        (
            "\N{MATHEMATICAL BOLD ITALIC SMALL F}".encode("utf-32-le"),
            1,
            4,
            "\N{MATHEMATICAL BOLD ITALIC SMALL F}",
        ),
        (b"main", 4, 0, ""),  # could not be read
        (b"main", 4, 3, ""),
        (b"ab\0\0", 4, 1, "ab\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}"),
        (b"abc", 0xFFFFFFFF, 1, "abc"),  # a length that can't be true
        (b"\x00\xd8" * 2, 2, 2, "\N{REPLACEMENT CHARACTER}" * 2),  # half a surrogate pair
    ],
)
def test_texts_of_every_width(data: bytes, chars: int, width: int, text: str) -> None:
    assert decode_text(data, chars, width) == text


def test_a_name_is_cut_at_its_end_and_a_file_at_its_begin() -> None:
    name, file = b"n" * PYTHON_NAME_BYTES, b"f" * PYTHON_FILE_BYTES

    _, decoded = decode_name(record(7, name, file, (1, 1), (500, 600)))

    assert decoded == Name(name.decode() + CUT, CUT + file.decode(), 12)


def test_the_identity_of_a_frame_is_function_file_and_first_line() -> None:
    registry = ModuleRegistry()
    names = PythonNames(registry, {})

    names.take(record(7))
    names.take(record(8))  # the same function of another process
    names.take(record(9, name=b"other"))

    expected = pack_frame(module_hash(PYTHON), name_hash(Name("main", "/a.py", 12)))
    assert names.frame(7) == names.frame(8) == expected
    assert names.frame(9) != expected
    assert registry.names[name_hash(Name("main", "/a.py", 12))].line == 12


def test_a_name_that_did_not_come_is_asked_for_again() -> None:
    counts: dict[str, int] = {}
    names = PythonNames(ModuleRegistry(), counts)
    asked: list[int] = []
    names.forget = asked.extend

    assert names.frame(7) == names.unknown

    assert asked == [7]
    assert counts == {"python_unnamed": 1}


def test_a_name_is_sent_again_before_it_is_forgotten() -> None:
    """Also one that is used, but only by stacks that are known: they don't ask for it."""
    names = PythonNames(ModuleRegistry(), {})
    asked: list[int] = []
    names.forget = asked.extend
    for id64 in (7, 8):
        names.take(record(id64, b"f%d" % id64))

    names.rotate()
    assert asked == [7, 8]
    assert names.frame(7) != names.unknown  # of a stack that was on its way
    names.take(record(8, b"f8"))
    names.rotate()
    assert asked == [7, 8, 7, 8]
    names.take(record(8, b"f8"))
    names.rotate()

    assert asked == [7, 8, 7, 8, 8]
    assert len(names) == 1
    assert names.frame(8) != names.unknown


def test_names_beyond_the_limit_are_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_IDS", 4)
    names = PythonNames(ModuleRegistry(), {})
    asked: list[int] = []
    names.forget = asked.extend
    for id64 in range(1, 7):
        names.take(record(id64, b"f%d" % id64))

    assert asked == [1, 2, 3, 4]
    assert len(names) == 4


def test_a_name_that_could_not_be_read_keeps_its_place() -> None:
    counts: dict[str, int] = {}
    registry = ModuleRegistry()
    names = PythonNames(registry, counts)

    names.take(record(7, widths=(0, 1)))

    assert names.frame(7) != names.unknown
    assert Name("[python]", "/a.py", 12) in registry.names.values()
    assert counts == {"python_unreadable": 1}


@pytest.mark.parametrize(
    ("whole", "python", "expected"),
    [
        (Name("Till.total", "/a.py"), Name("Till.total", "/a.py", 7), True),
        (Name("Till.total", "/a.py"), Name("Till.other", "/a.py", 7), False),
        (Name("Till.total", "/a.py"), Name("Till.total", "/b.py", 7), False),
        (Name("long_name", "/folder/a.py"), Name(f"long{CUT}", f"{CUT}r/a.py", 7), True),
        (Name("long_name", "/folder/a.py"), Name(f"lung{CUT}", f"{CUT}r/a.py", 7), False),
    ],
)
def test_a_name_in_a_perf_map_is_a_functions(whole: Name, python: Name, expected: bool) -> None:
    assert is_same_function(whole, python) is expected


def test_a_trampoline_is_known_by_its_module_and_name() -> None:
    registry = ModuleRegistry()
    names = PythonNames(registry, {})
    function = registry.name_frame(PYTHON, Name("main", "/a.py", 12))
    trampoline = registry.name_frame(JIT, Name("main", "/a.py"))

    assert names.is_trampoline(trampoline, function)
    assert not names.is_trampoline(function, function)
    assert not names.is_trampoline(trampoline, trampoline)
    assert not names.is_trampoline(registry.jit, function)
