"""`flamefleet-agent record`: profile this host for some seconds into a file, without a server."""

from node_agent.record.errors import RecordError
from node_agent.record.record import Recording, record

__all__ = ["RecordError", "Recording", "record"]
