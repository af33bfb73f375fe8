"""A broker's URL says whether strangers may write to the broker.

A writer can have the worker do its jobs as often as it likes, and read nothing: messages are
hints. It is still no place for strangers.
"""

import stat
from pathlib import Path
from urllib.parse import urlsplit

REMEDY = (
    "give it a password (requirepass in valkey.conf, or a user of its ACL) and name it in "
    "broker_url, redis://:PASSWORD@HOST:6379/0; or use a socket in a folder closed to others"
)


def open_to_strangers(broker_url: str) -> str:
    """Why others than the aggregator's user can write to the broker; "" where they cannot.

    Only what the URL shows: a password is none to a guesser of short ones.
    """
    parts = urlsplit(broker_url)
    if parts.password:
        return ""
    if parts.scheme not in ("redis+socket", "unix", "socket"):
        return f"the broker at {parts.hostname or 'localhost'} asks nobody for a password"
    path = Path(parts.path)
    try:
        # connect(2) on a socket takes the right to write to it, and to pass the folders above.
        is_open = bool(path.stat().st_mode & stat.S_IWOTH) and all(
            folder.stat().st_mode & stat.S_IXOTH for folder in path.parents
        )
    except OSError:
        return ""  # it is not there, or not for us; whoever connects says so
    return f"every user of this machine can write to the broker at {path}" if is_open else ""
