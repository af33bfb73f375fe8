"""`make test` runs a test that failed again, alone, and says which were flaky."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

_SCRIPT = Path(__file__).parents[3] / "scripts/run_tests.py"
_FAILS_AT_FIRST = """
from pathlib import Path
import pytest

@pytest.mark.beside
def test_beside():
    pass

def test_other():
    pass

@pytest.mark.parametrize("kind", ["a::b [c]"])
def test_shaky(kind):
    tries = Path("tries")
    tries.write_text(str(int(tries.read_text()) + 1 if tries.exists() else 1))
    assert int(tries.read_text()) > {failures}, "not yet"
"""
Start = Callable[..., "subprocess.Popen[str]"]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """start(source, *options): the tests in `source`, in a project of their own."""
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n  long\n  beside\n")

    def start(source: str, *options: str) -> "subprocess.Popen[str]":
        (tmp_path / "test_them.py").write_text(source)
        return subprocess.Popen(
            [sys.executable, str(_SCRIPT), *options],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    return start


@pytest.fixture
def run(start: Start) -> Run:
    """run(source, *options): the same until their end."""

    def run(source: str, *options: str) -> "subprocess.CompletedProcess[str]":
        running = start(source, *options)
        output, _ = running.communicate()
        return subprocess.CompletedProcess(running.args, running.returncode, output)

    return run


def _flaky(folder: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads((folder / "build/flaky.json").read_text())
    return found


@pytest.mark.parametrize("failures", [1, 2])
def test_a_test_that_passes_when_run_again_is_listed(
    run: Run, tmp_path: Path, failures: int
) -> None:
    done = run(_FAILS_AT_FIRST.format(failures=failures))
    assert done.returncode == 0, done.stdout
    words = f"failed {failures} of {failures + 1} times: call: AssertionError: not yet"
    assert words in done.stdout
    (one,) = _flaky(tmp_path)
    assert one["test"] == "test_them.py::test_shaky[a::b [c]]"
    assert one["failures"] == failures
    assert str(one["reason"]).startswith("call: AssertionError: not yet")
    assert "the 3 slowest tests" in done.stdout


def test_a_test_that_fails_three_times_fails_the_run(run: Run, tmp_path: Path) -> None:
    done = run(_FAILS_AT_FIRST.format(failures=3))
    assert done.returncode == 1
    assert "failed: test_them.py::test_shaky" in done.stdout
    assert _flaky(tmp_path) == []
    assert (tmp_path / "tries").read_text() == "3"


def test_a_run_without_failures_lists_none(run: Run, tmp_path: Path) -> None:
    done = run(_FAILS_AT_FIRST.format(failures=0))
    assert done.returncode == 0, done.stdout
    assert _flaky(tmp_path) == []
    assert (tmp_path / "tries").read_text() == "1"


def test_a_choice_may_leave_one_process_without_tests(run: Run) -> None:
    source = _FAILS_AT_FIRST.format(failures=0)
    assert run(source, "-k", "test_other").returncode == 0
    assert run("").returncode == 1


@pytest.mark.parametrize(
    "source",
    [
        "import nothing_of_this_name",
        "import os, pytest\n"
        "@pytest.mark.beside\ndef test_a(): pass\n"
        "def test_dies(): os._exit(0)\n",
    ],
)
def test_a_run_that_was_not_whole_fails(run: Run, source: str) -> None:
    """Tests that could not be collected, and a pytest that died, are no flaky tests."""
    assert run(source).returncode == 1


def test_many_failures_are_not_run_again(run: Run, tmp_path: Path) -> None:
    many = "import pytest\n@pytest.mark.parametrize('n', range(30))\ndef test_n(n): assert 0\n"
    done = run(many)
    assert done.returncode == 1
    assert "30 tests failed: none is run again" in done.stdout
    assert _flaky(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_tests_started_ends_with_the_run(start: Start, tmp_path: Path, number: int) -> None:
    fixture = """
import time
from pathlib import Path
import pytest

@pytest.fixture
def program(request):
    Path(f"started-{request.node.name}").touch()
    yield
    Path(f"ended-{request.node.name}").touch()

@pytest.mark.beside
def test_beside(program): time.sleep(600)

def test_other(program): time.sleep(600)
"""
    running = start(fixture)
    while len(list(tmp_path.glob("started-*"))) < 2:
        assert running.poll() is None
        time.sleep(0.05)
    # As from a terminal, SIGINT reaches all of them.
    (os.killpg if number == signal.SIGINT else os.kill)(running.pid, number)
    running.communicate(timeout=300)
    assert running.returncode != 0
    assert len(list(tmp_path.glob("ended-*"))) == 2
