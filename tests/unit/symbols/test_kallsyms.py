from pathlib import Path

import pytest

from node_agent.collectors.cpu import CpuCollector
from node_agent.symbols import kallsyms
from node_agent.symbols.errors import KernelSymbolsError
from node_agent.symbols.kallsyms import (
    KALLSYMS,
    KernelFrames,
    kernel_build_id,
    parse_modules,
    read_ranges,
)
from node_agent.symbols.kernel_table import encode_table, kernel_table, module_table
from node_agent.symbols.modules import BPF, ModuleRegistry
from wire.hashes import module_hash, name_hash, pack_frame
from wire.schema import ModuleKind, Name

TEXT = b"""\
ffffffff81000000 T startup_64
ffffffff81000000 T _stext
ffffffff81000000 T _text
ffffffff81001000 t helper
ffffffff81001000 T __x64_sys_read
ffffffff81001000 W sys_read
ffffffff81002000 D some_data
ffffffff81002ff0 t __pfx_last.isra.0
ffffffff81003000 t last.isra.0
ffffffff81004000 T _etext
ffffffff82000000 T init_text
ffffffffc0100010 t ext4_get	[ext4]
ffffffffc0100000 T ext4_put	[ext4]
ffffffffc0200000 T other	[btrfs]
ffffffffc0300000 t bpf_prog_6deef7357e7b4530_sd_devices	[bpf]
ffffffffc0301000 t bpf_trampoline_6442532	[bpf]
"""
MODULES = """\
ext4 1000 2 - Live 0xffffffffc0100000
btrfs 4096 0 - Live 0xffffffffc0200000
hidden 4096 0 - Live 0x0000000000000000
"""


@pytest.mark.parametrize("piece", [1, 13, 100, 10_000])
def test_ranges_are_found_whatever_the_pieces(piece: int) -> None:
    ranges = read_ranges(TEXT[i : i + piece] for i in range(0, len(TEXT), piece))
    assert (ranges.stext, ranges.etext) == (0xFFFFFFFF81000000, 0xFFFFFFFF81004000)
    assert [symbol.name for symbol in ranges.bpf] == [
        "bpf_prog_6deef7357e7b4530_sd_devices",
        "bpf_trampoline_6442532",
    ]


def test_hidden_addresses_are_an_error_with_a_remedy() -> None:
    hidden = b"".join(b"0" * 16 + line[16:] + b"\n" for line in TEXT.splitlines())
    with pytest.raises(KernelSymbolsError) as caught:
        read_ranges([hidden])
    assert "kptr_restrict" in caught.value.remedy


def test_one_known_name_an_address() -> None:
    assert kernel_table(TEXT) == [
        (0x0, b"startup_64"),
        (0x1000, b"__x64_sys_read"),
        (0x3000, b"last.isra.0"),
    ]


def test_a_modules_table_is_relative_to_its_load_address() -> None:
    table = module_table(TEXT, "ext4", 0xFFFFFFFFC0100000, 1000)
    assert table == [(0, b"ext4_put"), (0x10, b"ext4_get")]
    assert encode_table(table) == b"0 ext4_put\n10 ext4_get\n"


def test_an_empty_table_is_an_error() -> None:
    with pytest.raises(KernelSymbolsError):
        encode_table([])


def test_modules_without_an_address_are_left_out() -> None:
    assert [(m.name, m.size) for m in parse_modules(MODULES)] == [("ext4", 1000), ("btrfs", 4096)]


def _host_text() -> bytes:
    return Path(KALLSYMS).read_bytes()


def test_hidden_addresses_make_no_table() -> None:
    hidden = b"".join(b"0" * 16 + line[16:] + b"\n" for line in TEXT.splitlines())
    with pytest.raises(KernelSymbolsError):
        kernel_table(hidden)
    with pytest.raises(KernelSymbolsError):
        kernel_table(b"")


def test_frames_of_the_running_kernel() -> None:
    text = _host_text()
    symbols = {name: int(line[:16], 16) for line in text.splitlines() if (name := line[19:])}
    stext, schedule = symbols[b"_stext"], symbols[b"schedule"]
    registry = ModuleRegistry()
    frame = KernelFrames(registry).frame(schedule + 5)
    hash64 = int.from_bytes(frame[:8], "little")
    assert registry.modules[hash64].kind == ModuleKind.KERNEL
    assert registry.modules[hash64].id == kernel_build_id()
    offset = int.from_bytes(frame[8:], "little")
    assert offset == schedule + 5 - stext
    assert dict(kernel_table(text))[offset - 5] == b"schedule"


def test_bpf_programs_are_named_by_their_tag() -> None:
    collector = CpuCollector(19, 1000, 1.0)
    collector.start()  # so that there is one
    try:
        programs = [
            (int(line[:16], 16), line[19:].split(b"\t")[0].decode())
            for line in _host_text().splitlines()
            if b" bpf_prog_" in line and line.endswith(b"_sample_cpu\t[bpf]")
        ]
        registry = ModuleRegistry()
        address, name = programs[0]
        frame = KernelFrames(registry).frame(address + 1)
    finally:
        collector.stop()
    assert frame == pack_frame(module_hash(BPF), name_hash(Name(name)))


def test_addresses_of_nothing_are_unmapped() -> None:
    registry = ModuleRegistry()
    frames = KernelFrames(registry)
    for address in (0, 1 << 40, 0xFFFF800000000000, (1 << 64) - 1):
        assert frames.frame(address) == registry.unmapped


def test_hidden_addresses_collapse_to_one_frame(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hidden = tmp_path / "kallsyms"
    hidden.write_bytes(b"0000000000000000 T _stext\n0000000000000000 T _etext\n")
    monkeypatch.setattr(kallsyms, "KALLSYMS", str(hidden))
    registry = ModuleRegistry()
    frames = KernelFrames(registry)
    assert frames.frame(0xFFFFFFFF81000000) == frames.frame(0xFFFFFFFF82000000)
    assert frames.frame(0xFFFFFFFF81000000) == registry.kernel_hidden


def test_a_bpf_program_loaded_later_is_found_after_a_while(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    table = tmp_path / "kallsyms"
    image, _, programs = TEXT.partition(b"ffffffffc0300000")
    table.write_bytes(image)
    monkeypatch.setattr(kallsyms, "KALLSYMS", str(table))
    registry = ModuleRegistry()
    frames = KernelFrames(registry)
    address = 0xFFFFFFFFC0300004
    assert frames.frame(address) == registry.unmapped
    table.write_bytes(image + b"ffffffffc0300000" + programs)
    assert frames.frame(address) == registry.unmapped  # not looked at again at once
    frames._loaded_at -= kallsyms.RELOAD_S + 1
    name = Name("bpf_prog_6deef7357e7b4530_sd_devices")
    assert frames.frame(address) == pack_frame(module_hash(BPF), name_hash(name))
    # Trampolines have a number of this boot in their name.
    trampoline = frames.frame(0xFFFFFFFFC0301004)
    assert trampoline == pack_frame(module_hash(BPF), name_hash(Name("bpf_trampoline")))
