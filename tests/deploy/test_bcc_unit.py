"""The packaged sampler in mode bcc, under its unit's limits and filters on a real host."""

import io
import json
import os
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HOSTS = Path(__file__).with_name("hosts.sh")
UNIT = "flamefleet-sampler"
NAME = "node1"
HEADERS = "/usr/src/headers"
# A host of its own: it has bcc, and takes no part in the others' network.
ENVIRONMENT = {
    **os.environ,
    "FLEET_PREFIX": "ffbcc",
    "FLEET_NET": "10.213.10",
    "FLEET_PACKAGES": "python3-venv python3-bpfcc",
}
CONFIG = f"""
[agent]
name = "{NAME}"
preset = "debug"
interval_s = 2
mode = "bcc"
"""
DROP_IN = f"[Service]\nEnvironment=BCC_KERNEL_SOURCE={HEADERS}\n"


def hosts(*arguments: str, content: bytes | None = None, check: bool = True) -> str:
    """Run hosts.sh with `content` as standard input; its standard output."""
    done = subprocess.run(
        [str(HOSTS), *arguments], env=ENVIRONMENT, input=content, capture_output=True, check=False
    )
    if check and done.returncode:
        pytest.fail(f"hosts.sh {arguments}: {done.stdout.decode()}{done.stderr.decode()}")
    return done.stdout.decode()


def put(path: str, content: bytes) -> None:
    hosts("in", NAME, "sh", "-c", f"mkdir -p $(dirname {path}) && cat >{path}", content=content)


def pack_headers() -> bytes:
    """Debian's headers in the name of this kernel, as tests/kernel/test_modes.py makes them."""
    newest = max(Path("/usr/src").glob("linux-headers-*-amd64"), default=None)
    if newest is None:
        pytest.skip("needs linux-headers-amd64")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", dereference=True) as archive:
        archive.add(newest / "Makefile", "Makefile")
        archive.add(newest / "arch", "arch")
        archive.add(newest / "include/generated", "include/generated", filter=_without_release)
        release = f'#define UTS_RELEASE "{os.uname().release}"\n'.encode()
        entry = tarfile.TarInfo("include/generated/utsrelease.h")
        entry.size = len(release)
        archive.addfile(entry, io.BytesIO(release))
        common = newest.with_name(newest.name.replace("-amd64", "-common"))
        for part in ("include", "arch/x86/include"):
            archive.add(common / part, f"../{common.name}/{part}")
    return packed.getvalue()


def _without_release(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if entry.name.endswith("utsrelease.h") else entry


@pytest.fixture
def bcc_host(agent_package: Path) -> Iterator[None]:
    hosts("down")
    hosts("image")
    hosts("up", "1")
    try:
        put("/tmp/agent.deb", agent_package.read_bytes())
        hosts("in", NAME, "dpkg", "-i", "--force-depends", "/tmp/agent.deb")
        put("/etc/flamefleet/agent.toml", CONFIG.encode())
        put(f"/etc/systemd/system/{UNIT}.service.d/headers.conf", DROP_IN.encode())
        unpack = f"mkdir -p {HEADERS} && tar -xPf - -C {HEADERS}"
        hosts("in", NAME, "sh", "-c", unpack, content=pack_headers())
        hosts("in", NAME, "systemctl", "daemon-reload")
        yield
    finally:
        hosts("down")


def shown(name: str) -> str:
    return hosts("in", NAME, "systemctl", "show", UNIT, "-p", name, "--value").strip()


def status() -> dict[str, Any]:
    path = "/var/lib/flamefleet/spool/status/sampler.json"
    text = hosts("in", NAME, "cat", path, check=False)
    return json.loads(text) if text.strip() else {}


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("bcc_host")
def test_bcc_compiles_and_runs_inside_its_unit() -> None:
    """The headers are another kernel's, so a process's id in the host's namespace is read from the
    wrong place and its samples are left out as foreign: that they are counted shows that the
    program was compiled, loaded and attached under the unit's filters and limits."""
    hosts("in", NAME, "systemctl", "start", UNIT, check=False)
    end = time.monotonic() + 300
    interrupts = 0
    found: dict[str, Any] = {}
    while interrupts < 100 and time.monotonic() < end:
        time.sleep(1)
        found = status()
        interval = found.get("interval") or {"samples": 0, "skipped": {}}
        interrupts = interval["samples"] + sum(interval["skipped"].values())

    said = hosts("in", NAME, "journalctl", "-u", UNIT, "--no-pager", "-o", "cat")
    assert found.get("mode") == "bcc", said
    assert interrupts >= 100, (found, said)
    assert found["state"] == "sampling", said
    assert shown("NRestarts") == "0", said
    # The compiler has left: what remains is the sampler alone.
    main = shown("MainPID")
    children = hosts("in", NAME, "ps", "-o", "pid=", "--ppid", main, check=False).split()
    assert main != "0"
    assert children == []
