"""`flamefleet-agent status`: what is the agent on this host doing?"""

import json
import os
import time
from argparse import Namespace

from node_agent.commands.configured import config_of
from node_agent.errors import EXIT_FAILED
from node_agent.spool import Spool, Usage
from node_agent.status import render, summarize


def execute(arguments: Namespace) -> int:
    """Print it; 0 when the sampler runs, 1 when it does not."""
    config = config_of(arguments)
    sampler = shipper = None
    usage = Usage(0, 0, 0, 0, 0.0)
    if (config.spool_dir / "status").is_dir():  # asking must not make a spool
        spool = Spool(config.spool_dir, config.spool_limit_bytes, config.spool_limit_age_s)
        spool.create()
        sampler, shipper = spool.read_status("sampler"), spool.read_status("shipper")
        usage = spool.usage()
    status = summarize(
        sampler, shipper, usage, config.spool_limit_bytes, time.time(), is_alive=_is_alive
    )
    print(json.dumps(status, indent=2) if arguments.json else render(status))
    return 0 if status["running"] else EXIT_FAILED


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return pid > 0
