"""Folders for private sockets: the path of a Unix socket has to be short."""

import hashlib
import tempfile
from pathlib import Path

from aggregator.local.account import Account, own_folder
from aggregator.local.errors import LocalError

# sun_path holds 108 bytes with its end (unix(7)); the longest name put into the folder is
# ".s.PGSQL.5432.lock".
_LONGEST_FOLDER = 108 - 1 - len("/.s.PGSQL.5432.lock")


def socket_folder(wanted: Path, account: Account | None) -> Path:
    """`wanted`, or where its path is too long a private folder beside the temporary files.

    The second is named by the first, so that a later start finds it again. Raises LocalError
    where somebody else's folder is in that place.
    """
    folder = wanted
    if len(bytes(wanted)) > _LONGEST_FOLDER:
        name = hashlib.sha256(bytes(wanted)).hexdigest()[:16]
        folder = Path(tempfile.gettempdir()) / f"flamefleet-{name}"
        if len(bytes(folder)) > _LONGEST_FOLDER:
            folder = Path("/tmp") / folder.name
        _require_ours(folder, account)
    own_folder(folder, account)
    return folder


def _require_ours(folder: Path, account: Account | None) -> None:
    owner = Path("/proc/self").stat().st_uid if account is None else account.uid
    try:
        folder.mkdir(mode=0o700)
        return
    except FileExistsError:
        status = folder.lstat()
    if folder.is_symlink() or not folder.is_dir() or status.st_uid not in (0, owner):
        raise LocalError(
            f"{folder}, where the private sockets go, belongs to somebody else: remove it, or "
            "choose a data folder with a shorter path"
        )
