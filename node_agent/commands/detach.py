"""`flamefleet-agent detach`: stop the sampler, and prove that the kernel holds nothing of ours."""

import json
import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

from node_agent.capabilities import KERNEL_PROGRAMS, using
from node_agent.commands.configured import config_of
from node_agent.errors import EXIT_FAILED
from node_agent.kernel.remains import Survey, survey
from node_agent.processes.mappings import read_process_file
from node_agent.spool import Spool
from wire.terminal import printable, printable_line

UNIT = "flamefleet-sampler.service"
WAIT_S = 15.0  # a sampler writes its last batch first, and the kernel frees objects a while later
_MANAGER = 1  # systemd's process id: it holds what the descriptor store keeps


def execute(arguments: SimpleNamespace) -> int:
    """Print what is left; 0 when that is nothing, 1 when something is or could not be seen."""
    config = config_of(arguments)
    with using(*KERNEL_PROGRAMS):
        found = survey()
        stopped: list[str] = []
        if not arguments.list:
            stopped = _stop(found, _read_pid(config.spool_dir))
            end = time.monotonic() + WAIT_S
            while stopped and not found.is_clean and time.monotonic() < end:
                time.sleep(0.2)
                found = survey()
    if arguments.json:
        left = [remnant._asdict() for remnant in found.found]
        print(json.dumps({"left": left, "unseen": found.unseen, "stopped": stopped}, indent=2))
    else:
        print(printable(render(found, stopped)))
    return 0 if found.is_clean else EXIT_FAILED


def render(found: Survey, stopped: list[str]) -> str:
    """For people: what was stopped, what is left and who holds it."""
    lines = [f"stopped {name}" for name in stopped]
    for kind, name, number, holders in found.found:
        what = f"{number} events {name}" if kind == "events" else f"{kind} {name}, id {number}"
        held = ", ".join(f"process {pid} ({_command(pid)})" for pid in holders)
        lines.append(f"left: {what}, held by {held or 'no process that can be seen'}")
    lines += [f"not looked at: {words}" for words in found.unseen]
    if found.is_clean:
        lines.append("nothing of Flamefleet is in the kernel")
    elif found.holders:
        by_unit = _MANAGER in found.holders  # and its main process, which must not be started again
        pids = " ".join(map(str, sorted(found.holders)))
        lines.append(
            f"  End what holds it: {f'systemctl stop {UNIT}' if by_unit else f'kill {pids}'}"
        )
    elif found.unseen:
        lines.append("  Run this as root.")
    return "\n".join(lines)


def _stop(found: Survey, sampler: int | None) -> list[str]:
    """Stop the unit and this spool's sampler, where they hold something; what was stopped. Other
    processes (a running `record`, say) are not ours to end: they are only named."""
    stopped = []
    by_unit = {pid for pid in found.holders if pid == _MANAGER or UNIT in _cgroup(pid)}
    if by_unit and Path("/run/systemd/system").is_dir() and shutil.which("systemctl"):
        subprocess.run(["systemctl", "stop", UNIT], check=False, timeout=90)
        stopped.append(UNIT)
    if sampler is not None and sampler in found.holders:
        with suppress(ProcessLookupError):
            os.kill(sampler, signal.SIGTERM)
            stopped.append(f"the sampler, process {sampler}")
    return stopped


def _read_pid(spool_dir: Path) -> int | None:
    """The process id that the sampler of this spool wrote down."""
    if not (spool_dir / "status").is_dir():
        return None
    spool = Spool(spool_dir)
    spool.create()
    pid = (spool.read_status("sampler") or {}).get("pid")
    return pid if isinstance(pid, int) and pid > _MANAGER else None


def _cgroup(pid: int) -> str:
    try:
        return read_process_file(pid, "cgroup").decode("utf-8", "replace")
    except OSError:
        return ""


def _command(pid: int) -> str:
    try:
        line = read_process_file(pid, "cmdline").decode("utf-8", "replace")
    except OSError:
        return "ended"
    text = printable_line(line.rstrip("\0").replace("\0", " "))
    return text if len(text) <= 80 else f"{text[:79]}…"
