"""Which account the local parts run as, all but the sampler.

Postgres refuses to run as root, and the centre and the shipper have no need to. No user is made for
them: as root they run as the existing unprivileged account `nobody`, otherwise as whoever started
them.
"""

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from aggregator.local.errors import LocalError

UNPRIVILEGED = "nobody"


@dataclass(frozen=True)
class Account:
    """A user that a server is switched to before it is executed."""

    name: str
    uid: int
    gid: int


def server_account() -> Account | None:
    """The account for the servers, or None to stay who we are. Raises LocalError."""
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(UNPRIVILEGED)
    except KeyError:
        raise LocalError(
            f"Postgres does not run as root and there is no user {UNPRIVILEGED!r} to run it as: "
            "start this command as an ordinary user, or give a Postgres by --database-url"
        ) from None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def share(path: Path, account: Account | None) -> None:
    """Let the group of `account` have what its owner has in the spool's folders, which sampler and
    account use both; links are not followed."""
    if account is not None:
        for each in (path, *path.rglob("*")):
            os.chown(each, -1, account.gid, follow_symlinks=False)
        path.chmod(0o2770)


def own_folder(path: Path, account: Account | None) -> None:
    """Make `path` (parents too) with mode 0700 and owned by `account`."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o700)
    if account is not None:
        os.chown(path, account.uid, account.gid)


def blocked_ancestor(path: Path, account: Account) -> Path | None:
    """The topmost folder on the way to `path` that `account` may not enter, or None.

    Only mode bits count; access lists are not read.
    """
    for folder in reversed(path.parents):
        status = folder.stat()
        if status.st_uid == account.uid:
            allowed = status.st_mode & 0o100
        elif status.st_gid == account.gid:
            allowed = status.st_mode & 0o010
        else:
            allowed = status.st_mode & 0o001
        if not allowed:
            return folder
    return None
