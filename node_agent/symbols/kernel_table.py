"""Symbol tables of the kernel image and of modules, as `wire.schema.SymbolExtract` carries them:
one "<hex offset> <name>" a line, sorted by offset.

Made from the whole text of kallsyms (120,000 lines) with as little work a line as Python allows:
the sampler's children count as its overhead.
"""

import re
from collections.abc import Iterable

from node_agent.symbols.errors import KernelSymbolsError

# Lines of the image end at the name; those of modules go on with a tab and "[module]". Names with
# __pfx_ are the padding in front of a function.
_IMAGE = re.compile(rb"^([0-9a-f]{16}) ([tTwW]) ((?!__pfx_)\S+)$", re.M)
_BOUND = re.compile(rb"^([0-9a-f]{16}) T (_[se]text)$", re.M)
Line = tuple[bytes, bytes, bytes]


def kernel_table(text: bytes) -> list[tuple[int, bytes]]:
    """(offset from `_stext`, name) of the functions of the kernel image, sorted, one an offset.

    Raises KernelSymbolsError when the text hides addresses.
    """
    bounds = {name: address for address, name in _BOUND.findall(text)}
    stext, etext = bounds.get(b"_stext", b""), bounds.get(b"_etext", b"")
    if not b"" < stext < etext:
        raise KernelSymbolsError("the kernel hides its addresses")
    # Hexadecimal numbers of one length compare as text.
    inside = (line for line in _IMAGE.findall(text) if stext <= line[0] < etext)
    return _one_name_an_offset(inside, int(stext, 16))


def module_table(text: bytes, name: str, base: int, size: int) -> list[tuple[int, bytes]]:
    """(offset from the load address, name) of the functions of one kernel module."""
    of_module = re.compile(
        rb"^([0-9a-f]{16}) ([tTwW]) ((?!__pfx_)\S+)\t\[%b\]$" % re.escape(name.encode()), re.M
    )
    low, high = b"%016x" % base, b"%016x" % (base + size)
    inside = (line for line in of_module.findall(text) if low <= line[0] < high)
    return _one_name_an_offset(inside, base)


def encode_table(table: list[tuple[int, bytes]]) -> bytes:
    """The text of a table. Raises KernelSymbolsError when it is empty."""
    if not table:
        raise KernelSymbolsError("the kernel lists no function of this module")
    return b"".join([b"%x %b\n" % row for row in table])


def _one_name_an_offset(lines: Iterable[Line], base: int) -> list[tuple[int, bytes]]:
    best: dict[bytes, Line] = {}
    for line in lines:
        known = best.setdefault(line[0], line)
        if known is not line and _rank(line) < _rank(known):
            best[line[0]] = line
    return [(int(address, 16) - base, best[address][2]) for address in sorted(best)]


def _rank(line: Line) -> tuple[bool, int, int]:
    """Among aliases, the one that people know: global, few leading underscores, short."""
    plain = line[2].lstrip(b"_")
    return (line[1] != b"T", len(line[2]) - len(plain), len(plain))
