"""When to set aside what the centre always fails on, so that it is not in the way of all the rest.

An answer of 5xx is the centre's trouble and no reason to lose a batch. But one batch that it can
never store would hold up its node until the spool drops it by age. So a batch is set aside after
`attempts` such answers over `patience_s`, each while the centre said that it is ready, which makes
the batch the likely culprit. Where the centre is wrong about itself this must not empty the spool:
until something has been delivered, the next one has to fail for twice as long, and so on. Pure.
"""

ATTEMPTS = 6
PATIENCE_S = 600.0
_MOST_DOUBLINGS = 10


class Patience:
    """Counts the failures of one thing to deliver, the one at the head of the queue."""

    def __init__(self, attempts: int = ATTEMPTS, patience_s: float = PATIENCE_S) -> None:
        self._least_attempts, self._patience_s = attempts, patience_s
        self._stem = ""
        self._attempts = 0
        self._since_s = 0.0
        self._set_aside = 0  # since the last delivery

    def failed(self, stem: str, now_s: float) -> bool:
        """`stem` failed again although the centre is ready; whether it is to be set aside.

        `now_s` is monotonic.
        """
        if stem != self._stem:
            self._stem, self._attempts, self._since_s = stem, 0, now_s
        self._attempts += 1
        needed_s = self._patience_s * 2 ** min(self._set_aside, _MOST_DOUBLINGS)
        if self._attempts < self._least_attempts or now_s - self._since_s < needed_s:
            return False
        self._set_aside += 1
        self._stem = ""
        return True

    def delivered(self) -> None:
        """Something arrived: the centre works."""
        self._set_aside = 0
        self._stem = ""


def is_failure(status: int) -> bool:
    """Whether `status` may be about the message: 503 says itself that it is about the centre."""
    return status >= 500 and status != 503
