"""One run of pytest that writes which tests failed, why, and how long each took:
test_session.py FILE [PYTEST OPTION…]. A line of JSON a phase, so that nothing is lost where the run
ends early."""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

_MOST_REASON = 300
_TESTS_FAILED = 1
_NOTHING_CHOSEN = 5


@dataclass
class Session:
    """A run that has ended: its status, the reason of each failure and the seconds of each test."""

    status: int
    is_finished: bool = False
    failures: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        """Whether it came to its end, with a reason for each failure: tests that could not be
        collected, or a pytest that died, are no flaky tests."""
        if self.status == _TESTS_FAILED:
            return self.is_finished and bool(self.failures)
        return self.is_finished and self.status in (0, _NOTHING_CHOSEN)


def read_session(file: Path, status: int) -> Session:
    """The session that `file` tells of, which ended with `status`."""
    session = Session(status)
    for line in file.read_text().splitlines() if file.exists() else ():
        phase = json.loads(line)
        test = phase["test"]
        if test is None:
            session.is_finished = True
            continue
        session.seconds[test] = session.seconds.get(test, 0.0) + phase["seconds"]
        if phase["reason"] is not None:
            session.failures.setdefault(test, phase["reason"])
    return session


class Recorder:
    """The plugin that writes the file."""

    def __init__(self, file: Path) -> None:
        self._output = file.open("w")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A phase of a test has ended: its set-up, the call or its tear-down."""
        phase = {
            "test": report.nodeid,
            "seconds": report.duration,
            "reason": f"{report.when}: {_reason(report)}" if report.failed else None,
        }
        print(json.dumps(phase), file=self._output, flush=True)

    def pytest_sessionfinish(self) -> None:
        """Say that the run came to its end."""
        print(json.dumps({"test": None}), file=self._output, flush=True)


def _reason(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    words = crash.message if crash is not None else str(report.longrepr)
    return " ".join(words.split())[:_MOST_REASON]


if __name__ == "__main__":
    sys.exit(pytest.main(sys.argv[2:], plugins=[Recorder(Path(sys.argv[1]))]))
