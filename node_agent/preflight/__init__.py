"""Can this host be profiled, by this user, and how well?

`read_facts` looks at the host (and really tries), `run_checks` judges, `render` shows.
"""

from node_agent.preflight.answer import Check, State, is_possible
from node_agent.preflight.checks import run_checks
from node_agent.preflight.facts import Facts, read_facts
from node_agent.preflight.table import render

__all__ = ["Check", "Facts", "State", "is_possible", "read_facts", "render", "run_checks"]
