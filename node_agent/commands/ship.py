"""`flamefleet-agent ship`: deliver the spool to the centre until told to stop."""

from argparse import Namespace

from node_agent.commands.configured import config_of
from node_agent.shipper import run_shipper


def execute(arguments: Namespace) -> int:
    """Run the shipper; its exit code."""
    return run_shipper(config_of(arguments))
