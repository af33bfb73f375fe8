"""Make texts and names of processes fit the limits of the wire. Pure.

A process names its files, functions and threads as it likes. What a message must not hold is
mended here, where the message is made: one odd name must not cost the message.
"""

from wire.limits import MAX_LABEL_BYTES, MAX_LINE, MAX_NAME_BYTES
from wire.schema import Module, Name


def fit_text(text: str, most_bytes: int) -> str:
    """`text` as UTF-8 of at most `most_bytes`, whole characters, without NUL."""
    if "\0" in text:
        text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    if text.isascii() and len(text) <= most_bytes:
        return text
    return text.encode("utf-8", "replace")[:most_bytes].decode("utf-8", "ignore")


def fit_name(name: Name) -> Name:
    """`name` with texts that fit; a line that no file has is 0, which says that it is unknown."""
    line = name.line if 0 <= name.line <= MAX_LINE else 0
    return Name(fit_text(name.function, MAX_NAME_BYTES), fit_text(name.file, MAX_NAME_BYTES), line)


def text_bytes(name: Name) -> int:
    """What the texts of `name` take in a message."""
    return len(name.function.encode()) + len(name.file.encode())


def fit_module(module: Module) -> Module:
    """`module` with a name that fits; its id says what it is and stays."""
    return Module(module.kind, module.id, fit_text(module.name, MAX_LABEL_BYTES))
