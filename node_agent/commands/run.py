"""`flamefleet-agent run`: sample this host into the spool until told to stop."""

from types import SimpleNamespace

from node_agent.capabilities import drop_unneeded
from node_agent.commands.configured import config_of
from node_agent.heap import bound_heap
from node_agent.sampler import run_sampler


def execute(arguments: SimpleNamespace) -> int:
    """Run the sampler; its exit code."""
    bound_heap()
    config = config_of(arguments)
    drop_unneeded()
    return run_sampler(config, is_reset=arguments.reset_breaker)
