"""`record` on the real kernel: known shares, kernel functions by name, both formats, its errors."""

import gzip
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from node_agent.record import RecordError, Recording, record

PROGRAMS = Path(__file__).parent.parent / "data" / "programs"
FRAME_POINTERS = ("-O1", "-fno-omit-frame-pointer")
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a command; it is ended with the test."""
    running = []

    def launch(*command: str | Path) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        running.append(process)
        return process

    yield launch
    for process in running:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def shares_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shares") / "shares"
    subprocess.run(["gcc", *FRAME_POINTERS, "-o", path, PROGRAMS / "shares.c"], check=True)
    return path


def record_enough(pid: int, output: Path, samples: int = 50, rate: int = 199) -> Recording:
    """A recording with so many samples: for longer where the process gets little of a CPU."""
    seconds = max(1, 1.3 * samples / rate)
    for turn in range(8):
        recording = record(seconds * 2**turn, rate, pid, output)
        if recording.samples >= samples:
            return recording
    pytest.fail(f"{recording.samples} of {samples} samples in {recording.duration_s:.0f} s")


def _folded(path: Path) -> Counter[tuple[str, ...]]:
    counts: Counter[tuple[str, ...]] = Counter()
    for line in path.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        counts[tuple(stack.split(";"))] += int(count)
    return counts


def _share(counts: Counter[tuple[str, ...]], function: str) -> float:
    return 100 * sum(n for stack, n in counts.items() if function in stack) / counts.total()


def test_shares_of_a_program_are_within_3_points(
    shares_program: Path, start: Start, tmp_path: Path
) -> None:
    process = start(shares_program)
    output = tmp_path / "shares.folded"
    recording = record_enough(process.pid, output, 4500, 499)  # 3 points are four standard errors
    counts = _folded(output)
    assert recording.samples == counts.total()
    assert recording.lost == {}
    assert {stack[0] for stack in counts} == {"shares"}
    for function, expected in (("half", 50), ("third", 30), ("fifth", 20)):
        assert _share(counts, function) == pytest.approx(expected, abs=3), function
    assert _share(counts, "turn") > 95
    # Return addresses were moved into their calls: callers are in the order of the source.
    assert any(stack[-3:] == ("main", "turn", "half") for stack in counts)


def test_a_system_call_reaches_into_the_kernel_by_name(start: Start, tmp_path: Path) -> None:
    process = start("dd", "if=/dev/zero", "of=/dev/null", "bs=64k")
    output = tmp_path / "dd.folded"
    record_enough(process.pid, output)
    counts = _folded(output)
    assert _share(counts, "ksys_read") > 50
    assert _share(counts, "do_syscall_64") > 50
    assert any(name.startswith("read_") or name == "clear_user" for s in counts for name in s)


def test_the_whole_host_is_recorded_with_processes_as_roots(
    shares_program: Path, start: Start, tmp_path: Path
) -> None:
    start(shares_program)
    start("dd", "if=/dev/zero", "of=/dev/null", "bs=64k")
    output = tmp_path / "host.folded"
    record(2, 199, None, output)
    roots = {stack[0] for stack in _folded(output)}
    assert {"shares", "dd"} <= roots


def test_go_pprof_opens_the_recording(shares_program: Path, start: Start, tmp_path: Path) -> None:
    if shutil.which("go") is None:
        pytest.skip("the go tool is missing: install Go to read pprof files back")
    process = start(shares_program)
    output = tmp_path / "shares.pb.gz"
    record_enough(process.pid, output, 500)
    top = subprocess.run(
        ["go", "tool", "pprof", "-top", output], check=True, capture_output=True, text=True
    ).stdout
    functions = [line.split()[5] for line in top.partition("cum%\n")[2].splitlines()]
    assert functions[:3] == ["half", "third", "fifth"]
    raw = subprocess.run(
        ["go", "tool", "pprof", "-raw", output], check=True, capture_output=True, text=True
    ).stdout
    assert "process:[shares]" in raw
    assert "PeriodType: cpu nanoseconds" in raw


def test_cpp_names_are_demangled(start: Start, tmp_path: Path) -> None:
    source = tmp_path / "shapes.cpp"
    source.write_text(
        """
        namespace shapes {
        template <class T> struct Area {
            __attribute__((noinline)) T sum(T limit) {
                volatile T total = (T)__builtin_frame_address(0);
                for (T i = 0; i < limit; i++) total = total + i;
                return total;
            }
        };
        }
        int main() { shapes::Area<long> area; for (;;) area.sum(1000000); }
        """
    )
    program = tmp_path / "shapes"
    subprocess.run(["g++", *FRAME_POINTERS, "-o", program, source], check=True)
    output = tmp_path / "shapes.folded"
    record_enough(start(program).pid, output)
    assert _share(_folded(output), "shapes::Area<long>::sum") > 90


def test_a_stripped_go_program_has_names_lines_and_inlined_functions(
    start: Start, tmp_path: Path
) -> None:
    go = shutil.which("go")
    if go is None:
        pytest.skip("no go")
    (tmp_path / "till.go").write_text(
        "package main\n\nvar sink int\n\n"
        "func inner(n int) {\n\tfor i := 0; i < n; i++ {\n\t\tsink = sink*3 + i\n\t}\n}\n\n"
        "//go:noinline\nfunc outer(n int) {\n\tinner(n)\n}\n\n"
        "func main() {\n\tfor {\n\t\touter(1000000)\n\t}\n}\n"
    )
    command = [go, "build", "-ldflags=-s -w", "-o", "till", "till.go"]
    subprocess.run(command, check=True, cwd=tmp_path)
    process = start(tmp_path / "till")
    output = tmp_path / "till.folded"
    record_enough(process.pid, output)
    assert _share(_folded(output), "main.outer") > 90
    profile = tmp_path / "till.pb.gz"
    record_enough(process.pid, profile)
    listed = subprocess.run(
        [go, "tool", "pprof", "-symbolize=none", "-lines", "-top", profile],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert re.search(r"main\.outer \S*till\.go:(6|7|13)\b", listed), listed
    version = subprocess.run([go, "env", "GOVERSION"], check=True, capture_output=True, text=True)
    if tuple(map(int, re.findall(r"\d+", version.stdout)[:2])) >= (1, 26):
        assert re.search(r"main\.inner \S*till\.go:[67] \(inline\)", listed), listed


def test_a_stripped_program_reads_module_and_offset(
    shares_program: Path, start: Start, tmp_path: Path
) -> None:
    stripped = tmp_path / "stripped"
    subprocess.run(["strip", "-o", stripped, shares_program], check=True)
    output = tmp_path / "stripped.folded"
    record_enough(start(stripped).pid, output)
    leaves = Counter[str]()
    for stack, count in _folded(output).items():
        leaves[stack[-1]] += count
    most, _ = leaves.most_common(1)[0]
    assert most.startswith("stripped+0x")


def test_a_deleted_program_is_still_recorded_by_name(
    shares_program: Path, start: Start, tmp_path: Path
) -> None:
    program = tmp_path / "deleted"
    shutil.copy(shares_program, program)
    process = start(program)
    program.unlink()
    output = tmp_path / "deleted.folded"
    record_enough(process.pid, output)
    assert _share(_folded(output), "half") > 20


def test_a_program_in_another_mount_namespace_is_named(
    shares_program: Path, start: Start, tmp_path: Path
) -> None:
    """As in a container: its path leads nowhere from here."""
    folder = tmp_path / "root"
    folder.mkdir()
    script = (
        f"mount -t tmpfs tmpfs {folder} && cp {shares_program} {folder}/inside "
        f"&& exec {folder}/inside"
    )
    process = start("unshare", "--mount", "sh", "-c", script)
    while Path(f"/proc/{process.pid}/exe").readlink().name != "inside":
        time.sleep(0.05)
    assert not (folder / "inside").exists()
    output = tmp_path / "inside.folded"
    record_enough(process.pid, output)
    assert _share(_folded(output), "half") > 20


def open_files() -> Iterator[str]:
    """What this process has open."""
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            yield str(descriptor.readlink())


def test_a_signal_ends_the_sampling_and_writes_the_file(
    shares_program: Path, start: Start, tmp_path: Path
) -> None:
    process = start(shares_program)
    output = tmp_path / "early.folded"
    us = threading.get_ident()

    def interrupt() -> None:
        """Three seconds after it has begun."""
        while not any("perf_event" in target for target in open_files()):
            time.sleep(0.05)
        time.sleep(3)
        # To that thread: any other that does not block it would take it as a KeyboardInterrupt.
        signal.pthread_kill(us, signal.SIGINT)

    timer = threading.Thread(target=interrupt, daemon=True)
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        timer.start()
        recording = record(3600, 99, process.pid, output)
    finally:
        timer.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
    assert recording.duration_s < 3600
    assert recording.samples == _folded(output).total() > 0


def test_an_idle_process_gives_an_empty_profile(start: Start, tmp_path: Path) -> None:
    process = start("sleep", "60")
    recording = record(0.5, 99, process.pid, tmp_path / "idle.pb.gz")
    assert recording.samples == 0
    assert gzip.decompress((tmp_path / "idle.pb.gz").read_bytes())


def test_each_stage_is_told_as_it_begins(
    shares_program: Path, start: Start, tmp_path: Path
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    process = start(shares_program)
    terminal, pipe = Terminal(), io.StringIO()
    record(1, 99, process.pid, tmp_path / "a.folded", terminal)
    record(1, 99, process.pid, tmp_path / "b.folded", pipe)
    for stage in ("reading the programs", "sampling for 1 s", "naming the functions of"):
        assert stage in terminal.getvalue()
        assert sum(stage in line for line in pipe.getvalue().splitlines()) == 1
    assert terminal.getvalue().endswith("\n")
    assert "\r" not in pipe.getvalue()


def test_a_signal_while_names_are_looked_up_ends_that_and_writes_the_file(
    shares_program: Path, start: Start, tmp_path: Path
) -> None:
    """The first Ctrl-C ends the sampling, the second, sent once the naming is told, the naming."""
    start(shares_program)
    output = tmp_path / "early.folded"
    command = [Path(sys.executable).with_name("flamefleet-agent"), "record"]
    recorder = subprocess.Popen(
        [*command, "--seconds", "2", "-o", output], stderr=subprocess.PIPE, text=True
    )
    assert recorder.stderr is not None
    said = []
    for line in recorder.stderr:
        said.append(line)
        if "naming the functions" in line:
            for _ in range(3):
                recorder.send_signal(signal.SIGINT)
    recorder.stderr.close()
    assert recorder.wait(120) == 0, said
    assert f"{output}: " in said[-1]
    assert "naming ended by a signal" in "".join(said)
    counts = _folded(output)
    assert counts.total() > 0
    assert any("+0x" in name for stack in counts for name in stack)
    assert {path.name for path in tmp_path.iterdir()} == {output.name}


def test_an_unknown_suffix_names_the_two_formats(tmp_path: Path) -> None:
    with pytest.raises(RecordError) as caught:
        record(1, 99, None, tmp_path / "profile.svg")
    assert ".folded" in caught.value.remedy
    assert ".pb.gz" in caught.value.remedy
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no process 4194305"):
        record(1, 99, 4194305, tmp_path / "a.folded")


def test_a_folder_that_does_not_exist_is_told_before_sampling(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="cannot be written"):
        record(3600, 99, None, tmp_path / "missing" / "a.folded")


@pytest.fixture
def python_caller(tmp_path: Path) -> Path:
    """A Python program whose C code calls back: without unwinding rows its stacks are short."""
    script = tmp_path / "calls_back.py"
    script.write_text(
        "def by_callback(number):\n"
        "    total = 0\n"
        "    for at in range(200):\n"
        "        total += at * number\n"
        "    return total\n"
        "while True:\n"
        "    sorted(range(1000), key=by_callback)\n"
    )
    return script


@pytest.mark.parametrize("flags", [(), ("--no-python",), ("--no-unwind",)])
def test_switches_leave_out_python_frames_and_unwinding(
    python_caller: Path, start: Start, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    process = start("/usr/bin/python3", python_caller)
    output = tmp_path / "python.folded"
    for seconds in ("1", "4", "16", "64"):  # a slow machine gives it little of a CPU
        options = ["--seconds", seconds, "--rate", "199", "--pid", str(process.pid)]
        said = subprocess.run(
            [sys.executable, "-m", "node_agent", "record", *options, "-o", output, *flags],
            check=True,
            capture_output=True,
            text=True,
        ).stderr
        counts = _folded(output)
        if counts.total() < 50:
            continue
        in_python, in_evaluator = (
            _share(counts, name) for name in ("by_callback", "_PyEval_EvalFrameDefault")
        )
        # A slow machine's first samples may have been taken before the program was known.
        if (in_evaluator if "--no-python" in flags else in_python) > 50:
            break
    else:
        pytest.fail(f"{counts.total()} samples, {counts.most_common(5)}")

    assert (in_python == 0) == ("--no-python" in flags)
    assert (", 0.0 % of stacks whole" in said) == ("--no-unwind" in flags), said


def test_what_the_host_excludes_is_not_recorded_either(
    shares_program: Path, start: Start, tmp_path: Path
) -> None:
    # Names of this run alone: another run's program would be another file of the same name.
    left_out, kept = (f"{name}-{os.urandom(4).hex()}" for name in ("left_out", "kept"))
    for name in (left_out, kept):
        start(shutil.copy(shares_program, tmp_path / name))
    config, output = tmp_path / "agent.toml", tmp_path / "all.folded"
    config.write_text(f'[agent.exclude]\nexecutables = ["{tmp_path}/{left_out}"]\n')
    code = (
        "import sys; from pathlib import Path; from node_agent.commands import record\n"
        "from node_agent.cli import main; record.DEFAULT_CONFIG_FILE = Path(sys.argv[1])\n"
        "sys.exit(main(['record', '--seconds', '3', '--rate', '199', '-o', sys.argv[2]]))"
    )
    subprocess.run([sys.executable, "-c", code, config, output], check=True)

    programs = Counter(stack[0] for stack in _folded(output))
    assert programs[kept] > 0
    assert programs[left_out] == 0
