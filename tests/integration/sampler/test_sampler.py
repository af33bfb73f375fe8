"""The sampler as a process on the real kernel: what it leaves in the spool, and what it obeys."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from symbolic.debuginfo import Archive

from node_agent.spool import Spool
from node_agent.spool.directives import define, symbols
from wire.codec import decode
from wire.hashes import module_hash, name_hash, pack_frame, stack_hash
from wire.schema import Batch, Definitions, ModuleKind, SymbolExtract
from wire.validate import check_batch, check_definitions

PROGRAMS = Path(__file__).parents[2] / "data" / "programs"
CAPABILITIES = ("bpf", "perfmon", "sys_ptrace", "dac_read_search", "syslog")
RUN = """
import sys
from pathlib import Path
from node_agent.config import load_config
from node_agent.sampler import run_sampler
overrides = {"name": "web-1", "preset": "debug", "interval_s": 1.0, "labels": {"team": "a"}}
overrides |= {"budget_percent": 100, "budget_user_percent": 100, "spool_dir": Path(sys.argv[1])}
sys.exit(run_sampler(load_config(None, {}, overrides)))
"""


class Sampler:
    """A running sampler and its spool, read as the shipper reads it."""

    def __init__(self, root: Path, environ: dict[str, str], wrapper: tuple[str, ...] = ()) -> None:
        self.root = root
        self.spool = Spool(root)
        self.spool.create()
        self.process = subprocess.Popen(
            [*wrapper, sys.executable, "-c", RUN, str(root)],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environ},
        )

    def status(self) -> dict[str, Any]:
        return self.spool.read_status("sampler") or {}

    def batches(self) -> list[Batch]:
        found = []
        for path in sorted((self.root / "batches").glob("*.batch")):
            batch = decode(path.read_bytes(), Batch)
            check_batch(batch)
            found.append(batch)
        return found

    def definitions(self) -> list[Definitions]:
        found = []
        for path in sorted((self.root / "batches").glob("*.defs")):
            message = decode(path.read_bytes(), Definitions)
            check_definitions(message)
            found.append(message)
        return found

    def stop(self) -> str:
        self.process.send_signal(signal.SIGTERM)
        return self.process.communicate(timeout=600)[1]


@pytest.fixture
def start_sampler(tmp_path: Path) -> Iterator[Callable[..., Sampler]]:
    running: list[Sampler] = []

    def start(*wrapper: str, **environ: str) -> Sampler:
        running.append(Sampler(tmp_path / "spool", environ, wrapper))
        return running[-1]

    yield start
    for sampler in running:
        if sampler.process.poll() is None:
            sampler.process.kill()
        sampler.process.communicate()


@pytest.fixture
def shares(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """With a build id that no other process of this host has."""
    path = tmp_path / "shares"
    flags = ["-O1", "-fno-omit-frame-pointer", f"-Wl,--build-id=0x{os.urandom(20).hex()}"]
    subprocess.run(["gcc", *flags, "-o", path, PROGRAMS / "shares.c"], check=True)
    process = subprocess.Popen([path])
    yield process
    process.kill()
    process.wait()


def _stacks(messages: list[Definitions]) -> dict[bytes, list[tuple[int, str, int | str]]]:
    """(module kind, module, offset or name) of each stack; the hash is computed again."""
    stacks = {}
    for message in messages:
        packed, shown = [], []
        for row, offset in zip(
            memoryview(message.frame_module).cast("I"),
            memoryview(message.frame_offset).cast("Q"),
            strict=True,
        ):
            module = message.modules[row]
            place: int | str = offset
            if module.kind == ModuleKind.NAMED:
                name = message.names[offset]
                place, offset = name.function, name_hash(name)  # noqa: PLW2901 (a name for its number)
            packed.append(pack_frame(module_hash(module), offset))
            shown.append((module.kind, module.name, place))
        rows = iter(memoryview(message.stack_frames).cast("I"))
        for length in memoryview(message.stack_lengths).cast("H"):
            frames = [next(rows) for _ in range(length)]
            computed = stack_hash(b"".join(packed[frame] for frame in frames))
            stacks[computed] = [shown[frame] for frame in frames]
    return stacks


def _rows(batch: Batch) -> list[tuple[bytes, dict[str, str], int]]:
    counts = memoryview(batch.counts).cast("I")
    return [
        (
            batch.stack_hashes[16 * row : 16 * row + 16],
            batch.series[series].labels,
            counts[row],
        )
        for row, series in enumerate(memoryview(batch.series_index).cast("I"))
    ]


def test_batches_and_definitions_tell_what_ran(start_sampler, shares, wait_until) -> None:
    sampler = start_sampler()
    wait_until(lambda: len(sampler.batches()) >= 4, "four batches")
    log = sampler.stop()
    assert sampler.process.returncode == 0
    assert "sampling at 199 Hz" in log

    batches = sampler.batches()
    assert [batch.sequence for batch in batches] == list(range(1, len(batches) + 1))
    assert {batch.run for batch in batches} == {bytes.fromhex(sampler.status()["run"])}
    assert {(b.node, b.collector, b.rate_millihertz) for b in batches} == {
        ("web-1", "cpu", 199_000)
    }
    defined = _stacks(sampler.definitions())
    used = {stack for batch in batches for stack, _, _ in _rows(batch)}
    assert used <= set(defined)
    functions: dict[str, int] = {}
    for batch in batches:
        for stack, labels, count in _rows(batch):
            assert labels["team"] == "a"
            if labels["executable"] == "shares":
                kind, module, _ = defined[stack][-1]
                if kind == ModuleKind.NATIVE:
                    functions[module] = functions.get(module, 0) + count
    assert max(functions, key=functions.__getitem__) == "shares"
    # An interval begins where the one before it ended.
    for before, after in pairwise(batches):
        gap_ns = after.start_ns - before.start_ns - before.duration_ns
        assert abs(gap_ns) < 100_000_000  # two clocks
    assert all(batch.overhead.sampler_cpu_ns > 0 for batch in batches)


def test_every_stack_of_a_program_says_how_it_ended(start_sampler, shares, wait_until) -> None:
    sampler = start_sampler()
    wait_until(lambda: len(sampler.batches()) >= 3, "three batches")
    sampler.stop()
    told = counted = 0
    for batch in sampler.batches():
        ends = [memoryview(column).cast("I") for column in batch.stack_ends.values()]
        for series, labels in enumerate(one.labels for one in batch.series):
            if labels["executable"] == "shares":
                told += sum(column[series] for column in ends)
        counted += sum(n for _, labels, n in _rows(batch) if labels["executable"] == "shares")
    assert told == counted > 0
    # The status has those of the last interval.
    last = sampler.batches()[-1].stack_ends
    ends_of_last = {reason: sum(memoryview(column).cast("I")) for reason, column in last.items()}
    assert sampler.status()["interval"]["stack_ends"] == ends_of_last


def test_a_signal_writes_the_interval_that_it_cuts_short(start_sampler, shares, wait_until) -> None:
    sampler = start_sampler()
    wait_until(lambda: sampler.status().get("state") == "sampling", "an interval")
    before = len(sampler.batches())
    sampler.process.send_signal(signal.SIGINT)
    sampler.process.communicate(timeout=600)
    assert sampler.process.returncode == 0
    assert len(sampler.batches()) > before
    assert sampler.status()["state"] == "stopped"


def test_each_start_is_another_run(start_sampler, wait_until) -> None:
    first = start_sampler()
    wait_until(first.batches, "a batch")
    first.stop()
    second = start_sampler()
    wait_until(lambda: len({batch.run for batch in second.batches()}) == 2, "another run")
    second.stop()
    last = [batch for batch in second.batches() if batch.run.hex() == second.status()["run"]]
    assert [batch.sequence for batch in last] == list(range(1, len(last) + 1))


def test_symbols_are_extracted_for_what_was_seen_and_nothing_else(
    start_sampler, shares, wait_until
) -> None:
    sampler = start_sampler()

    def seen() -> dict[str, bytes]:
        modules = [m for message in sampler.definitions() for m in message.modules]
        return {module.name: module.id for module in modules}

    wait_until(lambda: {"shares", "vmlinux"} <= set(seen()), "samples of both")
    ids = seen()
    sampler.spool.put_directive(symbols(ModuleKind.NATIVE, ids["shares"]))
    sampler.spool.put_directive(symbols(ModuleKind.KERNEL, ids["vmlinux"]))
    sampler.spool.put_directive(symbols(ModuleKind.NATIVE, b"\x01" * 20))
    wait_until(
        lambda: sampler.status().get("extracts", {}).get("made") == 2,
        "two extracts",
    )
    extracts = {}
    for entry in sampler.spool.pending_extracts():
        file = sampler.spool.open_extract(entry)
        assert file is not None
        with file:
            extract = decode(file.read(), SymbolExtract)
        extracts[extract.name] = extract
    sampler.stop()
    assert set(extracts) == {"shares", "vmlinux"}
    assert sampler.status()["extracts"] == {"made": 2, "unknown": 1, "pending": 0}
    assert (extracts["shares"].node, extracts["shares"].build_id) == ("web-1", ids["shares"])
    assert b" schedule\n" in extracts["vmlinux"].data

    # Offsets of the samples and symbols of the extract fit together.
    [elf] = Archive.from_bytes(extracts["shares"].data).iter_objects()
    symcache = elf.make_symcache()
    counts: dict[str, int] = {}
    defined = _stacks(sampler.definitions())
    for batch in sampler.batches():
        for stack, _, count in _rows(batch):
            for _, module, offset in defined[stack]:
                if module == "shares":
                    [match] = symcache.lookup(offset)
                    counts[match.symbol] = counts.get(match.symbol, 0) + count
    assert counts["half"] > counts["fifth"] > 0
    assert counts["turn"] >= counts["half"]


def test_the_five_capabilities_are_enough(start_sampler, shares, wait_until) -> None:
    """Those of the deployed unit: kernel and foreign files are read, and a child extracts."""
    kept = ",".join(f"+{name}" for name in CAPABILITIES)
    sampler = start_sampler(
        *("setpriv", f"--bounding-set=-all,{kept}", "--inh-caps=-all", "--no-new-privs")
    )

    def shown() -> dict[tuple[int, str], bytes]:
        modules = [m for message in sampler.definitions() for m in message.modules]
        return {(module.kind, module.name): module.id for module in modules}

    wanted = {(ModuleKind.NATIVE, "shares"), (ModuleKind.KERNEL, "vmlinux")}
    wait_until(lambda: wanted <= set(shown()), "samples of both")
    status = Path(f"/proc/{sampler.process.pid}/status").read_text()
    effective = next(line for line in status.splitlines() if line.startswith("CapEff"))
    assert bin(int(effective.split()[1], 16)).count("1") == len(CAPABILITIES)
    for kind, name in wanted:
        sampler.spool.put_directive(symbols(kind, shown()[kind, name]))
    wait_until(lambda: sampler.status().get("extracts", {}).get("made") == 2, "two extracts")


def test_a_deleted_program_that_has_ended_is_refused_as_gone(
    start_sampler, shares, tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    sampler = start_sampler()

    def build_id() -> bytes | None:
        modules = [m for message in sampler.definitions() for m in message.modules]
        return next((module.id for module in modules if module.name == "shares"), None)

    found = wait_until(build_id, "a sample")
    shares.kill()
    shares.wait()
    (tmp_path / "shares").unlink()
    sampler.spool.put_directive(symbols(ModuleKind.NATIVE, found))
    entry = wait_until(sampler.spool.pending_extracts, "an extract")[0]
    file = sampler.spool.open_extract(entry)
    assert file is not None
    with file:
        extract = decode(file.read(), SymbolExtract)
    assert extract.data == b""
    assert "deleted" in extract.refused


def test_stacks_are_defined_again_when_the_centre_asks(start_sampler, shares, wait_until) -> None:
    sampler = start_sampler()

    asked: set[bytes] = set()

    def defined_twice() -> bool:
        """Ask for stacks of the program in the last two batches: they will come again, unless
        unwind rows that came just then make others of them."""
        sets = [
            {stack for stack, labels, _ in _rows(batch) if labels["executable"] == "shares"}
            for batch in sampler.batches()[-2:]
        ]
        new = (sets[0] & sets[-1] if len(sets) > 1 else set()) - asked
        if new:
            sampler.spool.put_directive(define(sorted(new)))
            asked.update(new)
        found = [s for message in sampler.definitions() for s in _stacks([message])]
        return any(found.count(stack) > 1 for stack in asked)

    wait_until(defined_twice, "another definition")


def test_systemd_is_told(start_sampler, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(600)
        sampler = start_sampler(
            NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC=str(30_000_000)
        )
        said = listener.recv(1000)
        while said.startswith(b"FDSTORE=1\nFDNAME=ff."):  # see tests/kernel/test_restart.py
            said = listener.recv(1000)
        assert b"READY=1" in said
        assert listener.recv(1000) == b"WATCHDOG=1"
        sampler.process.send_signal(signal.SIGTERM)
        states = []
        while b"STOPPING=1" not in states:
            states.append(listener.recv(1000))


def test_a_full_disk_is_outlived_and_one_interval_kept(
    tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    """A tiny file system of its own: full for a while, then with room again."""
    mount = tmp_path / "small"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", mount], check=True)
    sampler = None
    try:
        sampler = Sampler(mount / "spool", {})
        wait_until(sampler.batches, "a batch")
        ballast = mount / "ballast"
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        stopped_at = len(sampler.batches())
        time.sleep(3)
        assert sampler.process.poll() is None
        ballast.unlink()
        wait_until(lambda: len(sampler.batches()) >= stopped_at + 3, "batches again")
        log = sampler.stop()
        assert sampler.process.returncode == 0
        assert "kept in memory" in log
        sequences = [batch.sequence for batch in sampler.batches()]
        assert sequences == sorted(sequences)
        missing = sequences[-1] - len(sequences)
        assert missing == sampler.status()["lost"].get("intervals", 0)
    finally:
        if sampler is not None and sampler.process.poll() is None:
            sampler.process.kill()
            sampler.process.communicate()
        subprocess.run(["umount", "--lazy", mount], check=True)


def test_the_status_is_one_json_object(start_sampler, wait_until) -> None:
    sampler = start_sampler()
    wait_until(lambda: sampler.status().get("sequence", 0) >= 2, "two intervals")
    status = json.loads((sampler.root / "status" / "sampler.json").read_text())
    assert status["pid"] == sampler.process.pid
    assert status["rate_hz"] == 199
    assert status["overhead"]["memory_bytes"] > 1_000_000
    assert status["samples"] >= 0
