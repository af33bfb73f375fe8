"""Errors of the overhead package."""

from node_agent.errors import AgentError


class OverheadError(AgentError):
    """The agent's own cost is not known."""
