"""What is wrong with one part of a message: a module, a name, a label, an event. Pure.

Such a part holds what programs and files of a host are called, so it must cost itself alone and
never the message. A fault of a module or name is a word, to count by; None where there is none.
"""

import math

from wire import limits
from wire.schema import Event, Module, ModuleKind, Name

_MAX_ID_BYTES = 64
_KINDS = frozenset(ModuleKind)
_EVENT_TEXTS = {
    "kind": limits.MAX_EVENT_WORD_BYTES,
    "reason": limits.MAX_EVENT_WORD_BYTES,
    "words": limits.MAX_EVENT_TEXT_BYTES,
    "before": limits.MAX_EVENT_TEXT_BYTES,
    "after": limits.MAX_EVENT_TEXT_BYTES,
}


def module_fault(module: Module) -> str | None:
    """`module_kind`, `module_id` or `module_name`."""
    if module.kind not in _KINDS:
        return "module_kind"
    if not 1 <= len(module.id) <= _MAX_ID_BYTES:
        return "module_id"
    return None if _is_text(module.name, limits.MAX_LABEL_BYTES) else "module_name"


def name_fault(name: Name) -> str | None:
    """`name`, `file` or `line`."""
    if not _is_text(name.function, limits.MAX_NAME_BYTES):
        return "name"
    if not _is_text(name.file, limits.MAX_NAME_BYTES):
        return "file"
    return None if 0 <= name.line <= limits.MAX_LINE else "line"


def is_label(name: str, value: str) -> bool:
    """Whether the name is not empty, and neither is too long or holds NUL."""
    most = limits.MAX_LABEL_BYTES
    return name != "" and _is_text(name, most) and _is_text(value, most)


def event_fault(event: Event) -> str | None:
    """In words, for an error. Any kind and reason is good, so that those of a later agent are
    stored too."""
    if not event.kind:
        return "an event's kind must not be empty"
    if not 0 < event.at_ns < 1 << 62:
        return f"an event's at_ns must be positive, below 2**62: {event.at_ns}"
    if not math.isfinite(event.value) or not math.isfinite(event.limit):
        return f"value and limit of event {event.kind[:40]!r} must be finite"
    for field, most in _EVENT_TEXTS.items():
        if not _is_text(getattr(event, field), most):
            return f"an event's {field} must not hold NUL, and have at most {most} bytes"
    return None


def is_reason(word: str) -> bool:
    """Whether `word` can name how stacks ended. Any word is accepted, so that a later agent's
    reasons are no cause to refuse its batch."""
    is_word = word.isascii() and word.isidentifier() and word == word.lower()
    return is_word and len(word) <= limits.MAX_STACK_END_BYTES


def _is_text(text: str, most_bytes: int) -> bool:
    """Whether Postgres can hold it and it is no longer than that."""
    return len(text) <= most_bytes and "\0" not in text and len(text.encode()) <= most_bytes
