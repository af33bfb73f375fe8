"""Programs that do what they can to mislead or stop whoever looks at them."""

import json
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from node_agent.spool.directives import symbols
from wire.codec import decode
from wire.schema import Definitions, Module, ModuleKind, SymbolExtract

SHARES = Path(__file__).parents[2] / "data" / "programs" / "shares.c"
FLAGS = ("-O1", "-static", "-fno-omit-frame-pointer")
# Maps and unmaps executable pages without end while another thread works in them.
CHURN = r"""
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
static void *churn(void *name)
{
    int fd = open(name, O_RDONLY);
    for (unsigned turn = 0;; turn++) {
        void *places[64];
        for (int n = 0; n < 64; n++)
            places[n] = mmap(0, 4096 * (1 + turn % 7), PROT_READ | PROT_EXEC,
                     n % 2 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_PRIVATE,
                     n % 2 ? -1 : fd, 0);
        for (int n = 0; n < 64; n++)
            munmap(places[n], 4096 * (1 + turn % 7));
    }
}
int main(int argc, char **argv)
{
    pthread_t thread;
    static const unsigned char loop[] = {0xb9, 0, 0, 0x10, 0, 0xff, 0xc9, 0x75, 0xfc, 0xc3};
    pthread_create(&thread, 0, churn, argv[0]);
    for (;;) {
        unsigned char *code = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        for (unsigned n = 0; n < sizeof loop; n++)
            code[n] = loop[n];
        ((void (*)(void))code)();
        munmap(code, 4096);
    }
}
"""


def compile_program(path: Path) -> str:
    """Compile the busy program to `path`; the build id, which no other file has: a module is
    called by the first of its files that was seen."""
    build_id = os.urandom(20).hex()
    subprocess.run(["gcc", *FLAGS, f"-Wl,--build-id=0x{build_id}", "-o", path, SHARES], check=True)
    return build_id


@pytest.fixture
def start(open_folder: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts programs that end with the test."""
    running: list[subprocess.Popen[bytes]] = []

    def start_(*command: str | Path) -> subprocess.Popen[bytes]:
        running.append(subprocess.Popen(command))
        return running[-1]

    yield start_
    for process in running:
        process.kill()
        process.wait()


@pytest.fixture
def program(open_folder: Path) -> Path:
    path = open_folder / "program"
    compile_program(path)
    return path


def find_module(agent, name: str) -> Module | None:
    for path in (agent.spool_dir / "batches").glob("*.defs"):
        for module in decode(path.read_bytes(), Definitions).modules:
            if module.name == name and module.kind == ModuleKind.NATIVE:
                return module
    return None


def extract_of(agent, module: Module) -> SymbolExtract:
    """Ask for it as the centre does, and wait."""
    agent.as_shipper(
        "import json, os, sys\n"
        "os.umask(0)\n"
        "open(sys.argv[1] + '/directives/x', 'w').write(sys.argv[2])\n",
        str(agent.spool_dir),
        json.dumps(symbols(module.kind, module.id)),
    )
    path = agent.spool_dir / "extracts" / f"{module.id.hex()}-{module.kind}.extract"
    agent.wait_for(lambda _status: path.exists(), "an extract")
    return decode(path.read_bytes(), SymbolExtract)


def goes_on(agent) -> dict:
    """The sampler's status after another two batches."""
    sequence = agent.status()["sequence"]
    return agent.wait_for(lambda s: s.get("sequence", 0) > sequence + 1 and s, "more batches")


def _lie(path: Path, target: Path) -> None:
    """A copy that the kernel still runs: it reads neither sections nor notes."""
    data = bytearray(path.read_bytes())
    huge = (1 << 64) - 4096
    struct.pack_into("<Q", data, 40, huge)  # where the sections are
    struct.pack_into("<HHH", data, 58, 64, 0xFFFF, 0xFFFE)
    segments = struct.unpack_from("<Q", data, 32)[0]
    for number in range(struct.unpack_from("<H", data, 56)[0]):
        at = segments + 56 * number
        if struct.unpack_from("<I", data, at)[0] == 4:  # notes
            struct.pack_into("<Q", data, at + 8, huge)
            struct.pack_into("<QQ", data, at + 32, huge, huge)
    target.write_bytes(data)
    target.chmod(0o755)


def test_headers_that_lie(make_agent, start, program, open_folder) -> None:
    _lie(program, open_folder / "liar")
    start(open_folder / "liar")
    agent = make_agent()
    agent.run()

    module = agent.wait_for(lambda _status: find_module(agent, "liar"), "samples of the liar")
    extract = extract_of(agent, module)

    assert len(module.id) == 20  # of the file's ends: it has no build id that can be read
    assert extract.data == b""
    assert "reach beyond the end of the file" in extract.refused
    goes_on(agent)
    assert "Traceback" not in agent.stop()


def test_mappings_that_change_while_they_are_read(make_agent, start, open_folder) -> None:
    path = open_folder / "churn"
    subprocess.run(
        ["gcc", "-O1", "-pthread", "-o", path, "-x", "c", "-"], input=CHURN.encode(), check=True
    )
    process = start(path)
    agent = make_agent()
    sampler = agent.run()
    agent.wait_for(lambda status: status.get("sequence", 0) > 4, "batches")

    status = goes_on(agent)

    assert process.poll() is None
    assert sampler.poll() is None
    assert status["samples"] > 100
    recorded = agent.ask("record", "--seconds", "5", "-o", str(agent.spool_dir / "x.folded"))
    assert recorded.returncode == 0, recorded.stderr
    assert "churn;" in (agent.spool_dir / "x.folded").read_text()
    assert "Traceback" not in agent.stop() + recorded.stderr


@pytest.mark.parametrize("trick", ["deleted", "fifo", "link", "replaced"])
def test_a_program_whose_file_is_another_thing_by_now(
    make_agent, start, program, open_folder, trick
) -> None:
    start(program)
    agent = make_agent()
    agent.run()
    module = agent.wait_for(lambda _status: find_module(agent, "program"), "samples")
    program.unlink()
    if trick == "fifo":
        os.mkfifo(program)
    elif trick == "link":
        program.symlink_to("/etc/shadow")
    elif trick == "replaced":
        shutil.copy("/bin/true", program)

    extract = extract_of(agent, module)

    assert extract.data == b""
    assert "deleted, replaced or not readable" in extract.refused
    status = goes_on(agent)
    assert status["extracts"]["failed"] == 1
    assert status["samples"] > 0
    assert "Traceback" not in agent.stop()


def test_a_new_process_of_a_deleted_program_is_told_by_its_memory(
    make_agent, start, program
) -> None:
    shown = subprocess.run(["readelf", "-n", program], capture_output=True, text=True, check=True)
    build_id = shown.stdout.split("Build ID: ")[1].split()[0]
    process = start(program)
    while Path(f"/proc/{process.pid}/exe").readlink() != program:
        time.sleep(0.05)
    program.unlink()
    agent = make_agent()
    agent.run()

    module = agent.wait_for(lambda _status: find_module(agent, "program"), "samples")

    assert module.id.hex() == build_id
    assert goes_on(agent)["unplaced"]["file_unavailable"] > 0


def test_another_mount_namespace_has_other_files(make_agent, start, program, open_folder) -> None:
    """At the same path the host has a decoy; what the process has mapped is what counts."""
    inside, outside = open_folder / "inside", open_folder / "outside"
    for folder in (inside, outside):
        folder.mkdir()
    compile_program(outside / "app")
    program.rename(inside / "app")
    shown = subprocess.run(
        ["readelf", "-n", inside / "app"], capture_output=True, text=True, check=True
    )
    build_id = shown.stdout.split("Build ID: ")[1].split()[0]
    start(
        *("unshare", "--mount", "sh", "-c"),
        f"mount --bind {inside} {outside} && exec {outside}/app",
    )
    agent = make_agent()
    agent.run()

    module = agent.wait_for(lambda _status: find_module(agent, "app"), "samples")
    extract = extract_of(agent, module)

    assert module.id.hex() == build_id
    assert extract.refused == ""
    assert bytes.fromhex(build_id) in extract.data


def test_a_root_of_its_own_with_planted_files(make_agent, start, program, open_folder) -> None:
    """In a chroot, under the name that the host shows, the process plants a link to a secret."""
    root = open_folder / "root"
    root.mkdir()
    program.rename(root / "app")
    secret = open_folder / "secret"
    secret.write_text("secret" * 100)
    secret.chmod(0o600)
    planted = root / str(root / "app").lstrip("/")
    planted.parent.mkdir(parents=True)
    planted.symlink_to(secret)
    start("chroot", root, "/app")
    agent = make_agent()
    agent.run()

    module = agent.wait_for(lambda _status: find_module(agent, "app"), "samples")
    extract = extract_of(agent, module)

    assert extract.refused == ""  # the host's own name for the file leads to it
    assert b"secret" * 3 not in extract.data
    goes_on(agent)


def test_names_of_ten_megabytes(make_agent, start, program, open_folder) -> None:
    """The first string of the table becomes ten megabytes long, and every symbol has it."""
    long = open_folder / "long"
    data = bytearray(program.read_bytes())
    sections = struct.unpack_from("<Q", data, 40)[0]
    count = struct.unpack_from("<H", data, 60)[0]
    rows = [sections + 64 * number for number in range(count)]
    [table] = [row for row in rows if struct.unpack_from("<I", data, row + 4)[0] == 2]
    link = struct.unpack_from("<I", data, table + 40)[0]
    offset, size = struct.unpack_from("<QQ", data, table + 24)
    for at in range(offset, offset + size, 24):
        struct.pack_into("<I", data, at, 1)
    struct.pack_into("<QQ", data, rows[link] + 24, len(data), (10 << 20) + 2)
    long.write_bytes(bytes(data) + b"\0" + b"N" * (10 << 20) + b"\0")
    long.chmod(0o755)
    other = open_folder / "other"
    compile_program(other)
    start(long)
    start(other)
    agent = make_agent()
    agent.run()
    module = agent.wait_for(lambda _status: find_module(agent, "long"), "samples")

    extract = extract_of(agent, module)
    recorded = agent.ask("record", "--seconds", "5", "-o", str(agent.spool_dir / "x.folded"))

    assert extract.refused == ""  # compressed it is small; the centre has limits of its own
    assert len(extract.data) < 16 << 20
    assert recorded.returncode == 0, recorded.stderr
    text = (agent.spool_dir / "x.folded").read_text()
    assert "N" * 4096 in text
    assert "N" * 4097 not in text
    assert "other;" in text
    assert ";half " in text
    goes_on(agent)
    assert "Traceback" not in agent.stop() + recorded.stderr
