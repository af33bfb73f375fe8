"""The layout of a data folder, and the lock that lets one `flamefleet up` use it at a time."""

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from aggregator.local.account import Account, own_folder, share
from aggregator.local.errors import InUseError, LocalError

ROOT_DEFAULT = Path("/var/lib/flamefleet/demo")


def default_data_folder() -> Path:
    """/var/lib/flamefleet/demo for root, else flamefleet below XDG_DATA_HOME (~/.local/share)."""
    return ROOT_DEFAULT if os.geteuid() == 0 else user_data_home() / "flamefleet"


def user_data_home() -> Path:
    """XDG_DATA_HOME, or what it is where it is not set."""
    home = os.environ.get("XDG_DATA_HOME")
    return Path(home) if home else Path.home() / ".local/share"


@dataclass(frozen=True)
class DataFolder:
    """Paths below `root`: servers' data, the agent's files, logs, and what the last run left."""

    root: Path

    @property
    def postgres(self) -> Path:
        return self.root / "servers/postgres"

    @property
    def sockets(self) -> Path:
        return self.root / "servers/sockets"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def spool(self) -> Path:
        return self.root / "spool"

    @property
    def agent_config(self) -> Path:
        return self.root / "agent.toml"

    def agent_token(self, node: str) -> Path:
        """A token belongs to one name: a renamed host gets another."""
        return self.root / f"token-{node.replace('/', '_')}"

    @property
    def centre_config(self) -> Path:
        return self.root / "centre.toml"

    @property
    def processes(self) -> Path:
        return self.root / "processes.json"

    @property
    def perf_event_paranoid(self) -> Path:
        """The sysctl's level while it is lowered."""
        return self.root / "perf_event_paranoid"

    @property
    def worker(self) -> Path:
        """What the worker writes."""
        return self.root / "worker"

    @property
    def worker_ready(self) -> Path:
        """Holds the process id of the worker that has last been ready."""
        return self.worker / "ready"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    def create(self) -> None:
        """Make the folders. Raises LocalError, also for a folder that holds something else."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            if any(self.root.iterdir()) and not self.lock.exists():
                raise LocalError(
                    f"{self.root} is not empty and was not made by flamefleet up: "
                    "choose another folder with --data-dir"
                )
            # The servers' account passes through; what it must not read is closed below.
            self.root.chmod(0o711)
            self.logs.mkdir(mode=0o700, exist_ok=True)
            self.postgres.parent.mkdir(mode=0o711, exist_ok=True)
        except OSError as error:
            raise LocalError(
                f"cannot make the data folder {self.root}: {error.strerror}; "
                "choose another with --data-dir"
            ) from error

    def open_to(self, account: Account | None) -> None:
        """Give `account` the folder of its worker, and its part of the spool."""
        own_folder(self.worker, account)
        self.spool.mkdir(mode=0o770, exist_ok=True)
        share(self.spool, account)

    def acquire(self) -> int:
        """Take the lock; it is held until the descriptor is closed. Raises InUseError."""
        descriptor = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(descriptor, 20).decode().strip() or "unknown"
            os.close(descriptor)
            raise InUseError(
                f"another flamefleet up (process {holder}) already uses {self.root}: stop it, or "
                "give this one its own --data-dir and --port"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return descriptor

    def write_private(self, path: Path, text: str, account: Account | None = None) -> None:
        """Replace a file that only the owner may read, and the group of `account`."""
        new = path.with_suffix(".new")
        new.unlink(missing_ok=True)
        new.touch(mode=0o600)
        new.write_text(text)
        if account is not None:
            os.chown(new, -1, account.gid)
            new.chmod(0o640)
        new.replace(path)
