"""When the agent has to stay detached from the kernel. Pure.

Three things open the breaker: three crashes in ten minutes, a warning or oops of the kernel that
names BPF or perf while the agent sampled, and a kernel on the list of known bad ones. Crashes are
forgotten ten minutes later; a kernel's complaint with the next boot; the list when the kernel
changes. `flamefleet-agent run --reset-breaker` closes it at once.

A run is written down before it attaches and struck out when it ends in order. One that was not
struck out when the next begins has crashed: by a signal, by its own fault, or with the machine.
"""

from dataclasses import dataclass, replace
from typing import Any

MAX_CRASHES = 3
WINDOW_S = 600.0
CRASHES, KERNEL_LOG, KNOWN_BAD = "crashes", "kernel_log", "known_bad_kernel"


@dataclass(frozen=True)
class Running:
    """The run that was begun last. `log_at` is the kernel log's own time when it began."""

    pid: int
    start_ticks: int  # of the process, since boot: ids are reused
    boot_id: str
    log_at: float


@dataclass(frozen=True)
class Opened:
    """Why the agent stays detached."""

    reason: str  # CRASHES, KERNEL_LOG or KNOWN_BAD
    words: str
    at: float  # Unix seconds
    boot_id: str


@dataclass(frozen=True)
class State:
    """What is remembered from run to run. Times are Unix seconds."""

    crashes: tuple[float, ...] = ()
    running: Running | None = None
    opened: Opened | None = None
    accepted_kernel: str = ""  # a reset took this kernel in spite of the list


@dataclass(frozen=True)
class Situation:
    """What a beginning run finds."""

    now: float  # Unix seconds
    boot_id: str
    kernel: str  # its release
    is_other_alive: bool  # the run of the state still runs: it has not crashed
    bad_kernel: str  # why this kernel is on the list; empty when it is not
    complaint: str  # what the kernel said about BPF or perf since that run began; or empty


def judge(state: State, found: Situation) -> State:
    """The state at the beginning of a run; it must not attach when `opened` is set."""
    crashes = [min(at, found.now) for at in state.crashes]  # a clock that was set back
    if state.running is not None and not found.is_other_alive:
        crashes.append(found.now)
    crashes = [at for at in crashes if found.now - at < WINDOW_S]
    opened = _still_open(state.opened, found)
    if opened is None:
        if state.opened is not None and state.opened.reason == CRASHES:
            crashes = []  # the window is over: three new ones are needed
        opened = _open(crashes, state.accepted_kernel, found)
    running = state.running if found.is_other_alive else None
    return replace(state, crashes=tuple(crashes), opened=opened, running=running)


def _still_open(opened: Opened | None, found: Situation) -> Opened | None:
    if opened is None:
        return None
    if opened.reason == CRASHES:
        at = min(opened.at, found.now)
        return replace(opened, at=at) if found.now - at < WINDOW_S else None
    if opened.reason == KERNEL_LOG:
        return opened if opened.boot_id == found.boot_id else None
    return None  # the list is looked up anew


def _open(crashes: list[float], accepted_kernel: str, found: Situation) -> Opened | None:
    if found.complaint:
        return Opened(KERNEL_LOG, found.complaint, found.now, found.boot_id)
    if found.bad_kernel and accepted_kernel != found.kernel:
        return Opened(KNOWN_BAD, found.bad_kernel, found.now, found.boot_id)
    if len(crashes) >= MAX_CRASHES:
        words = f"{len(crashes)} crashes within {WINDOW_S / 60:.0f} minutes"
        return Opened(CRASHES, words, found.now, found.boot_id)
    return None


def reset(state: State, kernel: str) -> State:
    """As an operator says: forget what opened it, and take this kernel whatever the list says."""
    return State(running=state.running, accepted_kernel=kernel)


def closes(opened: Opened) -> str:
    """What closes it, for people."""
    automatic = {
        CRASHES: f"It closes {WINDOW_S / 60:.0f} minutes after that",
        KERNEL_LOG: "It closes with the next boot",
        KNOWN_BAD: "It closes with another kernel",
    }
    return f"{automatic[opened.reason]}; `flamefleet-agent run --reset-breaker` closes it now."


def to_json(state: State) -> dict[str, Any]:
    """The content of the state's file."""
    return {
        "version": 1,
        "crashes": list(state.crashes),
        "running": vars(state.running) if state.running else None,
        "opened": vars(state.opened) if state.opened else None,
        "accepted_kernel": state.accepted_kernel,
    }


def from_json(content: Any) -> State:
    """The state of such a content. Raises ValueError when it is none of this version."""
    try:
        if content["version"] != 1:
            raise ValueError(f"version {content['version']!r}")
        running, opened = content["running"], content["opened"]
        state = State(
            crashes=tuple(map(float, content["crashes"])),
            running=running
            and Running(
                int(running["pid"]),
                int(running["start_ticks"]),
                str(running["boot_id"]),
                float(running["log_at"]),
            ),
            opened=opened
            and Opened(
                str(opened["reason"]),
                str(opened["words"]),
                float(opened["at"]),
                str(opened["boot_id"]),
            ),
            accepted_kernel=str(content["accepted_kernel"]),
        )
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"not a breaker's state: {error!r}") from error
    if state.opened is not None and state.opened.reason not in (CRASHES, KERNEL_LOG, KNOWN_BAD):
        raise ValueError(f"unknown reason {state.opened.reason!r}")
    return state
