"""Perf events for the agent of `flamefleet up` on Debian's and Ubuntu's kernels.

From kernel.perf_event_paranoid 3 on (Debian's default; Ubuntu's is 4) they deny perf events to all
but CAP_SYS_ADMIN, which the agent never takes; docs/security.md says more. So that one command
shows something on a new machine, root's `up` lowers it to the kernel's own default while it runs.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SYSCTL = Path("/proc/sys/kernel/perf_event_paranoid")
_ALLOWS = "2"  # the highest level of the kernel itself


@contextmanager
def perf_events_allowed(
    say: Callable[[str], None], kept: Path, sysctl: Path = SYSCTL
) -> Iterator[None]:
    """Hold the level at 2 at most; at the end it is what it was, unless somebody else changed it.

    `kept` is a file with what it was, while it is lowered: what was killed is put right by the
    next one. Where the level can't be written nothing happens: the check of the host tells what to
    do.
    """
    before = _read(sysctl)
    if before == _ALLOWS and _denies(_read(kept)):
        before = _read(kept)
    if not _denies(before):
        kept.unlink(missing_ok=True)
        yield
        return
    kept.write_text(f"{before}\n")
    if not _write(sysctl, _ALLOWS):
        kept.unlink()
        yield
        return
    say(f"kernel.perf_event_paranoid is {before}, which denies profiling: {_ALLOWS} until the end")
    try:
        yield
    finally:
        if _read(sysctl) == _ALLOWS:
            _write(sysctl, before)
        kept.unlink(missing_ok=True)


def _denies(level: str) -> bool:
    return level.isdigit() and int(level) > int(_ALLOWS)


def _read(sysctl: Path) -> str:
    with suppress(OSError):
        return sysctl.read_text().strip()
    return ""


def _write(sysctl: Path, level: str) -> bool:
    with suppress(OSError):
        sysctl.write_text(level + "\n")
    return _read(sysctl) == level
