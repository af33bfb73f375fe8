"""An error's message and its remedy, put together for people. Both are written without a period at
their end; the agent's remedies are sentences that have one."""

_ENDS = (".", "!", "?", "…", ":")


def sentences(*parts: str) -> str:
    """The parts that are not empty as sentences behind one another, each ended once."""
    first, *others = [part.strip() for part in parts if part.strip()] or [""]
    return " ".join(_ended(part) for part in (first, *map(_begun, others)) if part)


def _begun(text: str) -> str:
    """With a capital, unless it begins with more than a plain word: a command, a path, a name."""
    word = text.split(maxsplit=1)[0].rstrip(",;:.")
    return text[0].upper() + text[1:] if word.isalpha() and word.islower() else text


def _ended(text: str) -> str:
    return text if text.endswith(_ENDS) else f"{text}."
