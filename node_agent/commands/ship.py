"""`flamefleet-agent ship`: deliver the spool to the centre until told to stop."""

from types import SimpleNamespace

from node_agent.commands.configured import config_of
from node_agent.heap import bound_heap
from node_agent.shipper import run_shipper


def execute(arguments: SimpleNamespace) -> int:
    """Run the shipper; its exit code."""
    bound_heap()
    return run_shipper(config_of(arguments))
