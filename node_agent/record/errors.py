"""Errors of recording."""

from node_agent.errors import AgentError


class RecordError(AgentError):
    """The recording cannot be made or written."""
