"""Functions of a real kernel module, by name: Debian's kernels load their overlay file system."""

import lzma
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
SCRIPT = """
set -e
busybox insmod /opt/overlay.ko
mkdir /tmp/lower /tmp/upper /tmp/work /tmp/merged
mount -t overlay overlay -o lowerdir=/tmp/lower,upperdir=/tmp/upper,workdir=/tmp/work /tmp/merged
python3 -B /opt/module_probe.py
"""


@pytest.mark.parametrize(
    ("suite", "release"),
    [
        pytest.param("bullseye", "5.10.", marks=pytest.mark.long),
        ("bookworm", "6.1."),
        pytest.param("trixie", "6.12.", marks=pytest.mark.long),
    ],
)
def test_functions_of_a_module_have_their_names(
    boot: Callable[..., Any], naming_root: Path, suite: str, release: str
) -> None:
    fetched = subprocess.run(
        [HERE / "kernels.sh", "fetch", suite], check=True, capture_output=True, text=True
    )
    cache = Path(os.environ.get("KERNELS_CACHE", "/var/tmp/flamefleet-kernels"), suite, "root")
    version = fetched.stdout.strip()
    (packed,) = (cache / "lib/modules" / version).rglob("overlay.ko*")
    content = packed.read_bytes()
    module = naming_root / "opt/overlay.ko"
    module.write_bytes(lzma.decompress(content) if packed.suffix == ".xz" else content)
    (found,) = boot(suite, naming_root, SCRIPT)

    assert found["release"].startswith(release)
    assert found["samples"] >= 100, found
    assert "overlay" in found["modules"], found
    overlay = found["modules"]["overlay"]
    assert overlay["build_id"] == gnu_build_id(module), found
    functions = overlay["functions"]
    # Under the names of the module's own symbol table, statics as well.
    named = {name for name in functions if "+0x" not in name}
    assert named <= symbols_of(module), found
    assert len(named) >= 10, found
    # A function counts once for each sample that it is on.
    assert sum(functions.values()) >= found["samples"] / 4, found
    assert sum(functions.values()) - sum(functions[name] for name in named) <= 1, found


def gnu_build_id(module: Path) -> str:
    notes = subprocess.run(["readelf", "-n", module], check=True, capture_output=True, text=True)
    return notes.stdout.partition("Build ID: ")[2].split()[0]


def symbols_of(module: Path) -> set[str]:
    listed = subprocess.run(["nm", module], check=True, capture_output=True, text=True).stdout
    return {line.split()[-1] for line in listed.splitlines() if line.split()[-2] in "tTwW"}
