"""The headers of the running kernel, as bcc needs them: where they are and what they are of."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from node_agent.kernel.errors import HeadersError

_RELEASE_FILE = "include/generated/utsrelease.h"  # kernel.release lacks Debian's suffix
_ARCHITECTURE = "arch/x86/include"
_WHAT = "The program cannot be compiled for this kernel"


class Headers(NamedTuple):
    """A tree that bcc can compile against."""

    source: Path  # has include/linux; bcc works in it
    build: Path  # has include/generated; the same folder where the tree is not split

    def include_flags(self) -> list[str]:
        """What bcc does not find by itself: Debian has generated headers in their own tree."""
        if self.build == self.source:
            return []
        folders = (
            "include",
            f"{_ARCHITECTURE}/generated",
            f"{_ARCHITECTURE}/generated/uapi",
            "include/generated/uapi",
        )
        return [f"-I{self.build / folder}" for folder in folders]


def find_headers(release: str, environ: Mapping[str, str], root: Path = Path("/")) -> Headers:
    """The headers of the kernel `release`: those that BCC_KERNEL_SOURCE names, or what the
    distributions install. Raises HeadersError.

    Fields are read from where these headers have them, so those of another kernel are refused.
    """
    remedy = f"apt install linux-headers-{release}, or set BCC_KERNEL_SOURCE to such a folder"
    looked, others = [], []
    for folder in _candidates(release, environ, root):
        looked.append(str(folder))
        found = _release_of(folder)
        if found is None:
            continue
        if found != release:
            others.append(f"{folder} is of {found}")
            continue
        source = _source_of(folder)
        if source is not None:
            return Headers(source, folder)
        others.append(f"{folder} has no include/linux, and its Makefile names no other folder")
    if others:
        raise HeadersError(_WHAT, f"{release} runs here, but {'; '.join(others)}", remedy)
    raise HeadersError(_WHAT, f"no kernel headers of {release} in {', '.join(looked)}", remedy)


def _candidates(release: str, environ: Mapping[str, str], root: Path) -> Iterator[Path]:
    given = environ.get("BCC_KERNEL_SOURCE")
    if given:
        yield Path(given)
        return
    yield root / "usr/src" / f"linux-headers-{release}"
    # Not readable in a unit with ProtectKernelModules, so it comes second.
    yield root / "lib/modules" / release / "build"


def _release_of(folder: Path) -> str | None:
    """The release that a tree was configured for; None when it is no such tree."""
    try:
        text = (folder / _RELEASE_FILE).read_text()
    except (OSError, UnicodeDecodeError):
        return None
    quoted = re.search(r'UTS_RELEASE\s+"([^"]+)"', text)
    return quoted.group(1) if quoted else None


def _source_of(folder: Path) -> Path | None:
    """Where include/linux is: here, or in the tree whose Makefile is included (Debian)."""
    if (folder / "include/linux/kconfig.h").exists():
        return folder
    try:
        included = re.search(r"^include\s+(\S+)/Makefile\s*$", (folder / "Makefile").read_text())
    except (OSError, UnicodeDecodeError):
        return None
    if included and (Path(included.group(1)) / "include/linux/kconfig.h").exists():
        return Path(included.group(1))
    return None
