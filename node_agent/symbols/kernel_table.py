"""Symbol tables of the kernel image and of modules, as `wire.schema.SymbolExtract` carries them:
one "<hex offset> <name>" a line, sorted by offset."""

from collections.abc import Iterable

from node_agent.symbols.errors import KernelSymbolsError
from node_agent.symbols.kallsyms import Symbol

_TEXT = "tTwW"


def kernel_table(symbols: Iterable[Symbol]) -> list[tuple[int, str]]:
    """(offset from `_stext`, name) of the functions of the kernel image, sorted, one an offset."""
    text = [symbol for symbol in symbols if not symbol.module]
    bounds = {s.name: s.address for s in text if s.name in ("_stext", "_etext")}
    stext, etext = bounds.get("_stext", 0), bounds.get("_etext", 0)
    if not 0 < stext < etext:
        raise KernelSymbolsError("the kernel hides its addresses")
    inside = (s for s in text if stext <= s.address < etext and s.name not in bounds)
    return _one_name_an_offset(inside, stext)


def module_table(
    symbols: Iterable[Symbol], name: str, base: int, size: int
) -> list[tuple[int, str]]:
    """(offset from the load address, name) of the functions of one kernel module."""
    return _one_name_an_offset(
        (s for s in symbols if s.module == name and base <= s.address < base + size), base
    )


def encode_table(table: list[tuple[int, str]]) -> bytes:
    """The text of a table. Raises KernelSymbolsError when it is empty."""
    if not table:
        raise KernelSymbolsError("the kernel lists no function of this module")
    return "".join(f"{offset:x} {name}\n" for offset, name in table).encode()


def _one_name_an_offset(symbols: Iterable[Symbol], base: int) -> list[tuple[int, str]]:
    best: dict[int, tuple[tuple[bool, int, int], str]] = {}
    for symbol in symbols:
        if symbol.type not in _TEXT:
            continue
        # Among aliases, the one that people know: global, few leading underscores, short.
        plain = symbol.name.lstrip("_")
        rank = (symbol.type != "T", len(symbol.name) - len(plain), len(plain))
        offset = symbol.address - base
        known = best.get(offset)
        if known is None or rank < known[0]:
            best[offset] = (rank, symbol.name)
    return [(offset, name) for offset, (_, name) in sorted(best.items())]
