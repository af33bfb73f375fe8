"""The `flamefleet up`s that run on this machine: each writes down where it is, so that other
commands find its database and its address without flags.

An entry holds no secret and everyone may read it. Only its own user's folder and root's are
believed.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from aggregator.errors import ConfigError
from aggregator.local.data_folder import DataFolder, user_data_home
from aggregator.local.options import UpOptions
from aggregator.local.supervisor import start_ticks

ROOT_FOLDER = Path("/run/flamefleet-up")
FOLDER_VARIABLE = "FLAMEFLEET_RUN_DIR"  # another folder, for `up` and for those who look for it


@dataclass(frozen=True)
class Running:
    """One that runs: its address, and the configuration of its aggregator."""

    pid: int
    started: int  # clock ticks since boot: a process id may be given again
    url: str
    config: str

    @property
    def is_usable(self) -> bool:
        """Whether this user may read its configuration, which reaches its database."""
        return os.access(self.config, os.R_OK)


def own_entries() -> Path:
    """Where this user's `flamefleet up`s are written down."""
    if named := os.environ.get(FOLDER_VARIABLE):
        return Path(named)
    return ROOT_FOLDER if os.geteuid() == 0 else user_data_home() / "flamefleet-up"


@contextmanager
def written_down(options: UpOptions, folder: DataFolder) -> Iterator[None]:
    """Have an entry while it lasts. Where none can be written, commands need their flags."""
    pid, entries = os.getpid(), own_entries()
    mine = Running(pid, start_ticks(pid) or 0, options.url.rstrip("/"), str(folder.centre_config))
    entry = entries / f"{pid}.json"
    try:
        entries.mkdir(mode=0o755, parents=True, exist_ok=True)
        new = entry.with_suffix(".new")
        new.write_text(json.dumps(asdict(mine)))
        new.chmod(0o644)
        new.replace(entry)
    except OSError:
        yield
        return
    try:
        yield
    finally:
        entry.unlink(missing_ok=True)


def running_config() -> Path | None:
    """The configuration of the one that runs, None where none does. Raises ConfigError."""
    ups = _running_ups()
    usable = [up for up in ups if up.is_usable]
    if ups and not usable:
        raise ConfigError(
            f"database_url is not set, and the running `flamefleet up` ({ups[0].url}) is root's",
            remedy="call the command with sudo, or name another centre's file with --config",
        )
    _require_one("--config", [up.config for up in usable])
    return Path(usable[0].config) if usable else None


def running_url() -> str | None:
    """The address of the one that runs, None where none does. Raises ConfigError."""
    ups = _running_ups()
    _require_one("--url", [up.url for up in ups])
    return ups[0].url if ups else None


def _require_one(flag: str, values: list[str]) -> None:
    if len(values) > 1:
        raise ConfigError(
            f"{len(values)} `flamefleet up` run on this machine",
            remedy="choose one: " + ", or ".join(f"{flag} {value}" for value in values),
        )


def _running_ups() -> list[Running]:
    """Those that run now; root's are everybody's where this user has none."""
    return _read(own_entries()) or ([] if FOLDER_VARIABLE in os.environ else _read(ROOT_FOLDER))


def _read(folder: Path) -> list[Running]:
    found: list[Running] = []
    try:
        entries = sorted(folder.iterdir())
    except OSError:  # there is none, or HOME is another user's
        return found
    for entry in entries:
        if entry.suffix != ".json":
            continue
        try:
            one = Running(**json.loads(entry.read_text()))
        except (OSError, ValueError, TypeError):
            continue  # gone meanwhile, or none of ours
        if start_ticks(one.pid) == one.started:
            found.append(one)
    return found
