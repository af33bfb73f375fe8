"""The command lines of the project's own parts."""

import signal
import sys

from aggregator.local.data_folder import DataFolder
from aggregator.local.process import Command

# -c and not the entry points: those are missing where the package was installed with --target.
_AGENT = "import sys; from node_agent.cli import main; sys.exit(main())"
_CENTRE = "import sys; from aggregator.cli import main; sys.exit(main())"


def agent_command(name: str, *arguments: str) -> Command:
    """`flamefleet-agent ARGUMENTS`, in Python's isolated mode."""
    argv = (sys.executable, "-I", "-c", _AGENT, *arguments)
    return Command(name, argv, stop_signal=signal.SIGTERM)


def sampler_command(folder: DataFolder) -> Command:
    """Samples this host into the spool. Its last batch is written when it is stopped."""
    return agent_command("sampler", "run", "--config", str(folder.agent_config))


def shipper_command(folder: DataFolder) -> Command:
    """Delivers the spool."""
    return agent_command("shipper", "ship", "--config", str(folder.agent_config))


def aggregator_command(folder: DataFolder) -> Command:
    """Serves the API and the page."""
    return _centre_command("aggregator", "serve", "--config", str(folder.centre_config))


def worker_command(folder: DataFolder) -> Command:
    """Celery worker and beat in one process: this host's work is small. It ends its task first."""
    return _centre_command(
        "worker",
        *("worker", "--config", str(folder.centre_config), "--beat", "--pool", "solo"),
        *("--schedule", str(folder.root / "beat-schedule"), "--log-level", "WARNING"),
        *("--ready-file", str(folder.worker_ready)),
    )


def _centre_command(name: str, *arguments: str) -> Command:
    argv = (sys.executable, "-I", "-c", _CENTRE, *arguments)
    return Command(name, argv)
