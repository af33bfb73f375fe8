"""Names of files in the spool, their order, and which of them have to go. Pure."""

from collections.abc import Iterable
from typing import NamedTuple

BATCH = ".batch"
DEFINITIONS = ".defs"
EXTRACT = ".extract"
TEMPORARY = ".tmp-"  # a prefix: never the name of a finished file
SPOOL_FULL = "spool_full"
SPOOL_AGE = "spool_age"


class BatchEntry(NamedTuple):
    """A batch in the spool: the hex of its run (32 digits) and its sequence."""

    run: str
    sequence: int

    @property
    def stem(self) -> str:
        return f"{self.run}-{self.sequence:012d}"


class ExtractEntry(NamedTuple):
    """A symbol extract in the spool: the hex of its build id and its wire.ModuleKind."""

    build_id: str
    module_kind: int

    @property
    def stem(self) -> str:
        return f"{self.build_id}-{self.module_kind}"


class Stored(NamedTuple):
    """A finished file of the spool. `modified_s` is Unix time, `bytes` its length."""

    folder: str
    name: str
    modified_s: float
    bytes: int


class Doomed(NamedTuple):
    """A file that has to go, and the reason it is counted under."""

    file: Stored
    reason: str


def parse_batch_name(name: str) -> BatchEntry | None:
    """The entry of a `.batch` or `.defs` file name; None for any other name."""
    stem, dot, suffix = name.rpartition(".")
    run, dash, sequence = stem.partition("-")
    if dot + suffix not in (BATCH, DEFINITIONS) or not dash:
        return None
    if not _is_hex(run, 32) or len(sequence) < 12 or not _is_decimal(sequence):
        return None
    return BatchEntry(run, int(sequence))


def parse_extract_name(name: str) -> ExtractEntry | None:
    """The entry of an `.extract` file name; None for any other name."""
    stem, dot, suffix = name.rpartition(".")
    build_id, dash, kind = stem.partition("-")
    if dot + suffix != EXTRACT or not dash or not _is_decimal(kind) or len(kind) > 3:
        return None
    if not 2 <= len(build_id) <= 128 or not _is_hex(build_id, len(build_id)):
        return None
    return ExtractEntry(build_id, int(kind))


def order(entries: Iterable[BatchEntry], run_started_s: dict[str, float]) -> list[BatchEntry]:
    """`entries` in the order of delivery: run by run (oldest first), by sequence within a run.

    The centre keeps a highest sequence for each run, so order within a run is never given up; it
    does not depend on clocks.
    """
    return sorted(entries, key=lambda entry: (run_started_s[entry.run], entry.run, entry.sequence))


def choose_doomed(
    files: Iterable[Stored], limit_bytes: int, limit_age_s: float, now_s: float
) -> list[Doomed]:
    """Which files must go, so that the rest is no older and no larger than the limits.

    The oldest go first. A batch and its definitions share a stem and a fate: a batch that goes
    takes its definitions along, and both count in `limit_bytes`.
    """
    groups: dict[tuple[str, str], list[Stored]] = {}
    for file in files:
        groups.setdefault((file.folder, file.name.rpartition(".")[0]), []).append(file)
    ordered = sorted(groups.values(), key=_age_key)
    total = sum(file.bytes for group in ordered for file in group)
    doomed: list[Doomed] = []
    for group in ordered:
        if now_s - _age_key(group)[0] > limit_age_s:
            reason = SPOOL_AGE
        elif total > limit_bytes:
            reason = SPOOL_FULL
        else:
            continue
        total -= sum(file.bytes for file in group)
        doomed += [Doomed(file, reason) for file in group]
    return doomed


def _age_key(group: list[Stored]) -> tuple[float, str]:
    """When the group was finished; the name decides between equal times."""
    newest = max(group, key=lambda file: file.modified_s)
    return newest.modified_s, newest.name


def _is_hex(text: str, length: int) -> bool:
    return len(text) == length and all(digit in "0123456789abcdef" for digit in text)


def _is_decimal(text: str) -> bool:
    return text.isascii() and text.isdigit()
