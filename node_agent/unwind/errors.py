"""Errors of unwinding."""

from node_agent.errors import AgentError


class UnwindError(AgentError):
    """Something that unwinding needs cannot be had."""


class NoRowsError(UnwindError):
    """A file holds no unwind information that rows could be made of, or it is no readable one."""


class RowFileError(UnwindError):
    """A file of rows is broken, of another version, or another build's."""
