"""`make test` runs a test that failed again, alone, and says which were flaky."""

import json
import subprocess
import sys
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
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """run(source, *options): the tests in `source`, in a project of their own."""
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n  long\n  beside\n")

    def run(source: str, *options: str) -> "subprocess.CompletedProcess[str]":
        (tmp_path / "test_them.py").write_text(source)
        command = [sys.executable, str(_SCRIPT), *options]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

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
