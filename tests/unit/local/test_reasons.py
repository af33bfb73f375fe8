"""Why a part ended, from its log: the words that each part's log really has."""

import pytest

from aggregator.local.reasons import MOST_CHARACTERS, last_reason

TRACEBACK = """2026-11-30 10:00:00,123 INFO aggregator.app: serving
Traceback (most recent call last):
  File "/usr/lib/python3.11/runpy.py", line 198, in _run_module_as_main
    return _run_code(code, main_globals, None,
OSError: [Errno 98] error while attempting to bind on address ('127.0.0.1', 8380)
"""


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("", ""),
        ("\n\n", ""),
        ("only this\n", "only this"),
        ("flamefleet-agent run: level=info event=start words=sampling\n", ""),
        ("2026-11-30 10:00:00.1 UTC [7] LOG:  starting\n", ""),
        (
            "flamefleet-agent run: level=info event=started words=x\n"
            "flamefleet-agent run: level=error event=start_failed "
            'words="the breaker is open: \\"3 crashes\\"" exit_code=4 remedy="Remove /x/breaker."\n'
            "flamefleet-agent run: level=info event=ended\n",
            'the breaker is open: "3 crashes". Remove /x/breaker.',
        ),
        (
            TRACEBACK,
            "OSError: [Errno 98] error while attempting to bind on address ('127.0.0.1', 8380)",
        ),
        (
            "flamefleet: port is 'x'; it must be a number\n  what to do: mend it\n",
            "flamefleet: port is 'x'; it must be a number; what to do: mend it",
        ),
        (
            "2026-11-30 10:00:00.1 UTC [7] LOG:  starting\n"
            "2026-11-30 10:00:00.2 UTC [7] FATAL:  data directory has wrong ownership\n"
            "2026-11-30 10:00:00.2 UTC [7] HINT:  The server must be started by its owner.\n"
            "2026-11-30 10:00:00.3 UTC [7] LOG:  shut down\n",
            "2026-11-30 10:00:00.2 UTC [7] FATAL:  data directory has wrong ownership; "
            "2026-11-30 10:00:00.2 UTC [7] HINT:  The server must be started by its owner.",
        ),
        (
            "7:M 30 Nov 2026 10:00:00.000 # Failed opening Unix socket: bind\n",
            "7:M 30 Nov 2026 10:00:00.000 # Failed opening Unix socket: bind",
        ),
        (
            "[2026-11-30 10:00:00,1: ERROR/MainProcess] consumer: Cannot connect\nbye\n",
            "[2026-11-30 10:00:00,1: ERROR/MainProcess] consumer: Cannot connect",
        ),
    ],
)
def test_the_last_error_is_found(log: str, words: str) -> None:
    assert last_reason(log) == words


def test_a_reason_is_one_printable_line_of_bounded_length() -> None:
    reason = last_reason("ValueError: \x1b[31m" + "x" * 10_000)
    assert len(reason) == MOST_CHARACTERS
    assert reason.isprintable()
