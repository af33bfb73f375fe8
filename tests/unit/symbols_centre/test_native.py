"""Symcaches from real ELF files; file offsets as binutils gives them."""

import lzma
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from aggregator.symbols import minidebug
from aggregator.symbols.elf import build_id, load_segments, noted_build_id
from aggregator.symbols.errors import RefusedExtractError
from aggregator.symbols.native import build_symbols, lookup

TOTAL = "_ZN4shop4CartIlE5totalEl"


def symbols_of(elf: Path) -> bytes:
    """The stored form of a file's symbols, under the build id that it has."""
    data = elf.read_bytes()
    return build_symbols(data, noted_build_id(data) or b"none")


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("-no-pie",),
        ("-static",),
        ("-Wl,-z,noseparate-code",),
        ("-Wl,-Ttext-segment=0x40000000",),
    ],
    ids=lambda flags: " ".join(flags) or "pie",
)
def test_file_offsets_give_demangled_functions(
    compiled: Callable[..., Path], file_offset: Callable[[Path, str], int], flags: tuple[str, ...]
) -> None:
    elf = compiled(*flags)
    wanted = [file_offset(elf, TOTAL) + 1, file_offset(elf, "plain_c"), file_offset(elf, "main")]
    stored = symbols_of(elf)
    places = lookup(stored, wanted)
    functions = [[line.function for line in place] for place in places]
    assert functions == [["shop::Cart<long>::total"], ["plain_c"], ["main"]]


def test_debug_information_gives_file_and_line(
    compiled: Callable[..., Path], file_offset: Callable[[Path, str], int]
) -> None:
    elf = compiled("-g")
    (place,) = lookup(symbols_of(elf), [file_offset(elf, "plain_c")])
    (line,) = place
    assert (line.function, Path(line.file).name, line.line) == ("plain_c", "shop.cpp", 7)


def test_offsets_beyond_the_symbols_have_no_place(compiled: Callable[..., Path]) -> None:
    stored = symbols_of(compiled())
    assert lookup(stored, [0, 5, 1 << 40, (1 << 64) - 1]) == [[], [], [], []]


def test_rust_names_are_demangled(tmp_path: Path, file_offset: Callable[[Path, str], int]) -> None:
    rustc = shutil.which("rustc")
    if rustc is None:
        pytest.skip("no rustc")
    source = tmp_path / "till.rs"
    source.write_text(
        "mod inner { #[inline(never)] pub fn burn(n: u64) -> u64 {"
        " (0..n).fold(0, |s, i| s ^ unsafe { std::ptr::read_volatile(&i) }) } }"
        'fn main() { println!("{}", inner::burn(10)); }'
    )
    for mangling in ("legacy", "v0"):
        elf = tmp_path / f"till-{mangling}"
        argv = [rustc, "-O", "-o", str(elf), str(source)]
        if mangling == "v0":
            argv += ["-C", "symbol-mangling-version=v0"]
        subprocess.run(argv, check=True, cwd=tmp_path)
        symbols = subprocess.run(["nm", str(elf)], check=True, capture_output=True, text=True)
        (burn,) = [
            line.split()[-1] for line in symbols.stdout.splitlines() if "5inner4burn" in line
        ]
        (place,) = lookup(symbols_of(elf), [file_offset(elf, burn)])
        assert [line.function for line in place] == ["till::inner::burn"]


def test_an_extract_of_another_build_is_refused(compiled: Callable[..., Path]) -> None:
    elf = compiled("-Wl,--build-id=0x" + "ab" * 20).read_bytes()
    build_symbols(elf, b"\xab" * 20)
    with pytest.raises(RefusedExtractError, match="not of cdcd"):
        build_symbols(elf, b"\xcd" * 20)


@pytest.mark.parametrize("build_id", ["none", "0x" + "00" * 20])
def test_a_file_without_an_id_of_its_own_goes_by_any(
    compiled: Callable[..., Path], build_id: str
) -> None:
    elf = compiled(f"-Wl,--build-id={build_id}").read_bytes()
    assert noted_build_id(elf) is None
    build_symbols(elf, b"\xcd" * 20)


def test_go_functions_have_names(tmp_path: Path) -> None:
    go = shutil.which("go")
    if go is None:
        pytest.skip("no go")
    (tmp_path / "till.go").write_text("package main\nfunc main() { println(7) }\n")
    elf = tmp_path / "till"
    subprocess.run([go, "build", "-o", str(elf), "till.go"], check=True, cwd=tmp_path)
    symbols = subprocess.run(["nm", str(elf)], check=True, capture_output=True, text=True).stdout
    (line,) = [line for line in symbols.splitlines() if line.endswith(" main.main")]
    first = load_segments(elf.read_bytes())[0]
    offset = int(line.split()[0], 16) - first.address + first.offset
    (place,) = lookup(symbols_of(elf), [offset])
    assert [line.function for line in place] == ["main.main"]


def test_an_extract_without_symbols_is_refused(compiled: Callable[..., Path]) -> None:
    stripped = compiled("-static", "-s").read_bytes()
    with pytest.raises(RefusedExtractError, match="no symbols"):
        build_symbols(stripped, noted_build_id(stripped) or b"none")


def test_truncated_files_are_refused_or_read_and_never_raise_anything_else(
    compiled: Callable[..., Path],
) -> None:
    elf = compiled().read_bytes()
    build_id = noted_build_id(elf) or b"none"
    refused = 0
    for length in range(0, len(elf), 509):
        try:
            build_symbols(elf[:length], build_id)
        except RefusedExtractError:
            refused += 1
    assert refused > 10


def test_flipped_bytes_are_refused_or_read_and_never_raise_anything_else(
    compiled: Callable[..., Path],
) -> None:
    elf = compiled().read_bytes()
    build_id = noted_build_id(elf) or b"none"
    for position in range(0, 1024, 3):
        damaged = bytearray(elf)
        damaged[position] ^= 0xFF
        try:
            lookup(build_symbols(bytes(damaged), build_id), [0x1139, 1 << 63])
        except RefusedExtractError as error:
            assert str(error)


@pytest.mark.parametrize("stored", [b"", b"\1", b"\xff\xff\xff\xff", b"FFN2" + b"nonsense" * 20])
def test_a_damaged_stored_form_is_refused(stored: bytes) -> None:
    with pytest.raises(RefusedExtractError, match="damaged"):
        lookup(stored, [1])


def pack_minimal_symbols(elf: Path, folder: Path, packed: bytes | None = None) -> Path:
    """A stripped copy of `elf` with `.gnu_debugdata`, as Fedora makes it."""
    debug, stripped, inside = folder / "debug", folder / "stripped", folder / "debug.xz"
    subprocess.run(["objcopy", "--only-keep-debug", elf, debug], check=True)
    kept = [f"--keep-symbol={name}" for name in (TOTAL, "plain_c", "main")]
    subprocess.run(["objcopy", "-S", *kept, debug, folder / "mini"], check=True)
    inside.write_bytes(lzma.compress((folder / "mini").read_bytes()) if packed is None else packed)
    subprocess.run(["strip", "-s", "-o", stripped, elf], check=True)
    subprocess.run(["objcopy", "--add-section", f".gnu_debugdata={inside}", stripped], check=True)
    return stripped


@pytest.mark.parametrize("flags", [(), ("-no-pie",)], ids=["pie", "no-pie"])
def test_minimal_debug_data_names_a_stripped_program(
    compiled: Callable[..., Path],
    file_offset: Callable[[Path, str], int],
    tmp_path: Path,
    flags: tuple[str, ...],
) -> None:
    elf = compiled(*flags)
    stored = symbols_of(pack_minimal_symbols(elf, tmp_path))
    offsets = [file_offset(elf, name) + 1 for name in (TOTAL, "plain_c", "main")]
    functions = [[line.function for line in place] for place in lookup(stored, offsets)]
    assert functions == [["shop::Cart<long>::total"], ["plain_c"], ["main"]]


@pytest.mark.parametrize("packed", [b"junk", lzma.compress(b"junk"), lzma.compress(b"x")[:-8]])
def test_damaged_minimal_debug_data_only_loses_its_names(
    compiled: Callable[..., Path],
    file_offset: Callable[[Path, str], int],
    tmp_path: Path,
    packed: bytes,
) -> None:
    elf = compiled()
    stored = symbols_of(pack_minimal_symbols(elf, tmp_path, packed))
    assert lookup(stored, [file_offset(elf, "plain_c") + 1]) == [[]]


def test_minimal_debug_data_that_unpacks_to_gigabytes_is_refused(
    compiled: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(minidebug, "MOST_BYTES", 1 << 20)
    with pytest.raises(RefusedExtractError, match="above"):
        minidebug.unpack(lzma.compress(bytes(8 << 20)))


@pytest.mark.parametrize(
    "flags", [(), ("-no-pie",), ("-fuse-ld=gold",), ("-Wl,-z,noseparate-code",)]
)
def test_separate_debug_information_gives_what_the_whole_file_gives(
    compiled: Callable[..., Path],
    file_offset: Callable[[Path, str], int],
    tmp_path: Path,
    flags: tuple[str, ...],
) -> None:
    elf = compiled("-g", *flags)
    debug = tmp_path / "shop.debug"
    subprocess.run(["objcopy", "--only-keep-debug", elf, debug], check=True)
    assert build_id(debug.read_bytes()) == build_id(elf.read_bytes())
    # The segments' places in the program are computed: the file itself doesn't tell them.
    found, real = (load_segments(path.read_bytes()) for path in (debug, elf))
    places = [[(each.offset, each.address) for each in segments] for segments in (found, real)]
    assert places[0] == places[1]
    offsets = [file_offset(elf, name) + 1 for name in (TOTAL, "plain_c", "main")]
    named = lookup(symbols_of(debug), offsets)
    assert named == lookup(symbols_of(elf), offsets)
    assert [place[-1].function for place in named][:2] == ["shop::Cart<long>::total", "plain_c"]


_INLINING = {
    "inline.cpp": """
namespace shop { template <class T> struct Cart {
  inline __attribute__((always_inline)) T add(T a) { volatile T s = a; return s + 1; }
  inline __attribute__((always_inline)) T twice(T a) { return add(a) + add(a + 1); }
}; }
extern "C" __attribute__((noinline)) long outer(long n) { shop::Cart<long> c; return c.twice(n); }
int main(int argc, char **) { return outer(argc); }
""",
    "inline.rs": """
struct Cart { n: u64 }
impl Cart {
  #[inline(always)] fn add(&self, a: u64) -> u64 {
    unsafe { std::ptr::read_volatile(&(a + self.n)) } }
  #[inline(always)] fn twice(&self, a: u64) -> u64 { self.add(a) ^ self.add(a + 1) }
}
#[no_mangle] #[inline(never)] pub extern "C" fn outer(n: u64) -> u64 { Cart { n }.twice(n) }
fn main() { println!("{}", outer(std::env::args().count() as u64)); }
""",
}


@pytest.mark.parametrize(
    ("source", "compiler", "functions"),
    [
        (
            "inline.cpp",
            ("g++", "-O2", "-g"),
            ["shop::Cart<long>::add", "shop::Cart<long>::twice", "outer"],
        ),
        (
            "inline.rs",
            ("rustc", "-O", "-g"),
            ["inline::Cart::add", "inline::Cart::twice", "outer"],
        ),
        (
            "inline.rs",
            ("rustc", "-O", "-g", "-Csymbol-mangling-version=v0"),
            ["<inline::Cart>::add", "<inline::Cart>::twice", "outer"],
        ),
    ],
    ids=["c++", "rust", "rust-v0"],
)
def test_inlined_functions_have_readable_names_and_lines(
    tmp_path: Path,
    file_offset: Callable[[Path, str], int],
    source: str,
    compiler: tuple[str, ...],
    functions: list[str],
) -> None:
    if shutil.which(compiler[0]) is None:
        pytest.skip(f"no {compiler[0]}")
    (tmp_path / source).write_text(_INLINING[source])
    subprocess.run([*compiler, "-o", "program", source], check=True, cwd=tmp_path)
    program = tmp_path / "program"
    start = file_offset(program, "outer")
    places = lookup(symbols_of(program), range(start, start + 24))
    chains = [[line.function for line in place] for place in places]
    # Rust's own read_volatile may be inlined below them.
    whole = [place for place, chain in zip(places, chains, strict=True) if chain[-3:] == functions]
    assert whole, chains
    for place in whole:
        assert [Path(line.file).name for line in place[-3:]] == [source] * 3
        assert all(line.line for line in place)
