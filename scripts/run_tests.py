"""Run every test that is not long, in two processes: run_tests.py [PYTEST OPTION…].

Most tests wait more than they work, so both together take little more than one of them. A test
that fails is run again alone, at most twice: one that then passes is listed as flaky, at the end
and in build/flaky.json, and does not fail the run.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NoReturn

from test_session import Session, read_session

AGAIN = 2
# So many failures are no accident of one test, and running them again would only cost time.
MOST_AGAIN = 20
SLOWEST = 25
FLAKY = Path("build/flaky.json")
PARANOID = Path("/proc/sys/kernel/perf_event_paranoid")
_CHOICES = ("not beside and not long", "beside and not long")
_NOTHING_CHOSEN = 5  # pytest's status where a choice of tests leaves none


@dataclass
class Flaky:
    """A test that failed, and passed when it was run again alone."""

    test: str
    reason: str
    failures: int = 1


@dataclass
class Verdict:
    """What running the failed tests again showed."""

    flaky: list[Flaky] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def main(options: list[str]) -> int:
    """Run the tests; 0 when each of them passed, at the latest when run again."""
    signal.signal(signal.SIGTERM, _leave)
    with tempfile.TemporaryDirectory(prefix="ff-tests-") as name, perf_events_allowed():
        folder = Path(name)
        # Tests run programs as other users in here.
        folder.chmod(0o755)
        sessions = run_both(folder, options)
        verdict = run_again(folder, sessions)
    print_slowest(sessions)
    write_flaky(verdict.flaky)
    print(f"{sum(len(s.seconds) for s in sessions)} tests in {len(sessions)} processes")
    for test in verdict.failed:
        print(f"failed: {test}")
    whole = all(s.is_whole for s in sessions)
    chosen = bool(options) or all(s.status != _NOTHING_CHOSEN for s in sessions)
    return 0 if whole and chosen and not verdict.failed else 1


@contextmanager
def perf_events_allowed() -> Iterator[None]:
    """Debian's and Ubuntu's kernels deny the agent its perf events (docs/security.md): not while
    it is tested."""
    level = PARANOID.read_text().strip() if PARANOID.exists() else "0"
    if int(level) <= 2 or not os.access(PARANOID, os.W_OK):
        yield
        return
    print(f"kernel.perf_event_paranoid is {level}, which denies profiling: 2 until the tests end")
    PARANOID.write_text("2")
    try:
        yield
    finally:
        PARANOID.write_text(level)


def run_both(folder: Path, options: list[str]) -> list[Session]:
    """One session each for what may run beside the others and what may not; the report of the
    second is printed when both have ended."""
    files = [folder / "first.jsonl", folder / "second.jsonl"]
    # A folder of its own: when pytest starts it closes the common one to other users.
    apart = {**os.environ, "PYTEST_DEBUG_TEMPROOT": str(_open_folder(folder / "second"))}
    report = folder / "second.txt"
    with report.open("wb") as output:
        second = subprocess.Popen(
            _command(files[1], ["-m", _CHOICES[1], "-p", "no:cacheprovider", *options]),
            stdout=output,
            stderr=output,
            env=apart,
        )
    first = subprocess.Popen(_command(files[0], ["-m", _CHOICES[0], *options]))
    try:
        first.wait()
        second.wait()
    except BaseException as error:
        for session in (first, second):
            # A terminal's Ctrl-C has reached them already; a second one would cut their end short.
            if not isinstance(error, KeyboardInterrupt) and session.poll() is None:
                session.send_signal(signal.SIGINT)
        for session in (first, second):
            session.wait()
        raise
    print(report.read_text(errors="replace"), flush=True)
    return [
        read_session(files[0], first.returncode),
        read_session(files[1], second.returncode),
    ]


def run_again(folder: Path, sessions: list[Session]) -> Verdict:
    """Run each test that failed again, alone, until it passes, at most `AGAIN` times."""
    failures = {test: reason for s in sessions for test, reason in s.failures.items()}
    verdict = Verdict()
    if len(failures) > MOST_AGAIN:
        print(f"{len(failures)} tests failed: none is run again, which is for {MOST_AGAIN} at most")
        verdict.failed = list(failures)
        return verdict
    for number, (test, reason) in enumerate(failures.items()):
        flaky = Flaky(test, reason)
        for turn in range(AGAIN):
            print(f"again, alone: {test}", flush=True)
            file = folder / f"again-{number}-{turn}.jsonl"
            apart = _open_folder(folder / file.stem)
            done = subprocess.run(
                _command(file, ["-p", "no:cacheprovider", test]),
                env={**os.environ, "PYTEST_DEBUG_TEMPROOT": str(apart)},
                check=False,
            )
            if done.returncode == 0:
                verdict.flaky.append(flaky)
                break
            flaky.failures += 1
        else:
            verdict.failed.append(test)
    return verdict


def print_slowest(sessions: list[Session]) -> None:
    """The slowest tests of all sessions, with the time of their fixtures."""
    seconds = {test: s for session in sessions for test, s in session.seconds.items()}
    slowest = sorted(seconds.items(), key=lambda pair: -pair[1])[:SLOWEST]
    print(f"the {len(slowest)} slowest tests, set-up and tear-down included:")
    for test, taken in slowest:
        print(f"{taken:8.1f} s  {test}")


def write_flaky(flaky: list[Flaky]) -> None:
    """List flaky tests on the standard output and in build/flaky.json, which is always written."""
    FLAKY.parent.mkdir(exist_ok=True)
    FLAKY.write_text(json.dumps([asdict(one) for one in flaky], indent=2) + "\n")
    for one in flaky:
        print(f"flaky: {one.test}: failed {one.failures} of {one.failures + 1} times: {one.reason}")


def _command(file: Path, options: list[str]) -> list[str]:
    session = Path(__file__).with_name("test_session.py")
    return [sys.executable, str(session), str(file), *options]


def _open_folder(folder: Path) -> Path:
    folder.mkdir()
    folder.chmod(0o755)
    return folder


def _leave(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
