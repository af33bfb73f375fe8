"""Errors of delivering: everything here means "keep it and try again later"."""

from node_agent.errors import EXIT_CONFIG, AgentError


class DeliveryError(AgentError):
    """The centre could not be reached, or its answer could not be read."""


class CredentialError(AgentError):
    """The enrolment token or the CA certificates cannot be read from their file."""

    exit_code = EXIT_CONFIG
