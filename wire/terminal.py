"""Text for terminals and logs: names are other people's, and a terminal obeys what it is sent."""


def printable(text: str) -> str:
    """`text` with everything but line ends escaped that is not to be seen as it is: control
    characters, escape sequences, marks that turn the direction of writing, lone surrogates."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\n" else _escaped(char) for char in text)


def printable_line(text: str) -> str:
    """The same on one line: what is in a name must not look like a line of ours."""
    return printable(text).replace("\n", "\\n")


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode()
