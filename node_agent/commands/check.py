"""`flamefleet-agent check`: can this host be profiled, and how well?"""

import json
import sys
from argparse import Namespace

from node_agent.capabilities import drop_unneeded
from node_agent.errors import EXIT_IMPOSSIBLE
from node_agent.preflight import is_possible, read_facts, render, run_checks


def execute(arguments: Namespace) -> int:
    """Print the checks; 0, or 3 when profiling is impossible."""
    drop_unneeded()  # what is checked is what `run` would have
    checks = run_checks(read_facts())
    if arguments.json:
        print(json.dumps([check._asdict() for check in checks], indent=2))
    else:
        print(render(checks, colour=sys.stdout.isatty()))
    return 0 if is_possible(checks) else EXIT_IMPOSSIBLE
