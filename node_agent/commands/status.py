"""`flamefleet-agent status`: what is the agent on this host doing?"""

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

from node_agent.commands.configured import config_of
from node_agent.errors import EXIT_FAILED
from node_agent.spool import Spool, Usage
from node_agent.status import summarize
from node_agent.status_words import render
from wire.terminal import printable


def execute(arguments: SimpleNamespace) -> int:
    """Print it; 0 when the sampler runs, 1 when it does not."""
    config = config_of(arguments)
    sampler = shipper = spool = None
    usage = Usage(0, 0, 0, 0, 0.0)
    trouble = ""
    if (config.spool_dir / "status").is_dir():  # asking must not make a spool
        spool = Spool(config.spool_dir, config.spool_limit_bytes, config.spool_limit_age_s)
        spool.create()
        sampler, shipper = spool.read_status("sampler"), spool.read_status("shipper")
        usage = spool.usage()
        trouble = disk_trouble(config.spool_dir)
    status = summarize(
        sampler, shipper, usage, config.spool_limit_bytes, time.time(), _is_alive, trouble
    )
    if arguments.json:
        print(json.dumps(status, indent=2))
    else:
        words = render(status)
        print(printable(words if spool else f"{words}\n{_unused(config.spool_dir)}"))
    return 0 if status["running"] else EXIT_FAILED


def _unused(folder: Path) -> str:
    return (
        f"No agent has used {folder} yet. Another one's configuration is named with --config; that "
        "of `flamefleet up` is agent.toml in its data folder."
    )


def disk_trouble(folder: Path) -> str:
    """Why the processes cannot write what they have to say into `folder`; empty when they can."""
    disk = os.statvfs(folder)
    if disk.f_flag & os.ST_RDONLY:
        return f"the file system of {folder} is read-only"
    if not disk.f_bavail or (disk.f_files and not disk.f_favail):
        return f"the file system of {folder} is full"
    return ""


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return pid > 0
