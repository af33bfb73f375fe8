"""Errors of reading CPython's frames."""

from node_agent.errors import AgentError


class PythonError(AgentError):
    """The frames of a Python program cannot be read; it is shown by its native frames."""


class OffsetsError(PythonError):
    """The list of offsets is damaged."""


class UnknownLayoutError(PythonError):
    """An interpreter whose memory layout is not known here; nothing is guessed."""
