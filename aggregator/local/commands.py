"""The command lines of the project's own parts."""

import sys
from dataclasses import replace
from pathlib import Path

from aggregator.local.account import Account
from aggregator.local.binaries import require_readable
from aggregator.local.data_folder import DataFolder
from aggregator.local.process import Command

# -c and not the entry points: those are missing where the package was installed with --target.
_AGENT = "import sys; from node_agent.cli import main; sys.exit(main())"
_CENTRE = "import sys; from aggregator.cli import main; sys.exit(main())"


class Commands:
    """The parts that use `folder`: the sampler as who we are, the others as `account`.

    `servers` are the folders of the sockets. Raises ServerMissingError where the account could not
    read the code.
    """

    def __init__(
        self, folder: DataFolder, account: Account | None, servers: tuple[Path, ...]
    ) -> None:
        require_readable(Path(__file__), account)
        self._folder = folder
        self._account = account
        self._servers = servers

    def sampler(self) -> Command:
        """Samples this host into the spool. Its last batch is written when it is stopped."""
        command = agent_command("sampler", "run", "--config", str(self._folder.agent_config))
        return replace(command, group=None if self._account is None else self._account.gid)

    def shipper(self) -> Command:
        """Delivers the spool."""
        return self._part("shipper", _AGENT, "ship", "--config", str(self._folder.agent_config))

    def aggregator(self) -> Command:
        """Serves the API and the page."""
        return self._centre("aggregator", "serve")

    def worker(self) -> Command:
        """Celery worker and beat in one process: this host's work is small. It ends its task
        first."""
        return self._centre(
            *("worker", "worker", "--beat", "--pool", "solo", "--log-level", "WARNING"),
            *("--schedule", str(self._folder.worker / "beat-schedule")),
            *("--ready-file", str(self._folder.worker_ready)),
        )

    def _centre(self, name: str, command: str, *arguments: str) -> Command:
        config = str(self._folder.centre_config)
        return self._part(name, _CENTRE, command, "--config", config, *arguments)

    def _part(self, name: str, code: str, *arguments: str) -> Command:
        argv = (sys.executable, "-I", "-c", code, *arguments)
        folders = (self._folder.root, *self._servers, *_code_folders())
        return Command(name, argv, self._account, folders)


def agent_command(name: str, *arguments: str) -> Command:
    """`flamefleet-agent ARGUMENTS`, in Python's isolated mode, with the abilities to profile: what
    site-packages would have run at the start of an interpreter (.pth files) does not get them."""
    code = f"import sys; sys.path[:] = {sys.path!r}; {_AGENT}"
    argv = (sys.executable, "-I", "-S", "-c", code, *arguments)
    return Command(name, argv, keeps_capabilities=True)


def _code_folders() -> tuple[Path, ...]:
    """What Python imports from, and itself."""
    interpreter = Path(sys.executable).resolve().parent
    named = [Path(entry) for entry in sys.path if entry]
    folders = {Path(sys.prefix), Path(sys.base_prefix), interpreter, *named}
    return tuple(sorted(folder for folder in folders if folder.is_dir()))
