"""Text that nodes send, made fit for people and for Postgres. Pure."""

MOST_NAME_CHARS = 1_000


def clean(text: str) -> str:
    """`text` without control characters (Postgres refuses NUL) and of bounded length."""
    if not text.isprintable():
        text = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
    if len(text) > MOST_NAME_CHARS:
        return text[: MOST_NAME_CHARS - 1] + "…"
    return text
