"""One child at a time over all kinds of work, the important one first, within the ration."""

import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from node_agent.children.ration import Ration
from node_agent.children.runner import Children, Task

LIMIT_S = 600.0
# Each job says what the child is to do.
CHILD = """
import os, sys, time
from node_agent.children.jobs import read_request

def main(arguments):
    for job in read_request(arguments).rationed():
        end = time.process_time() + job.get("burn_s", 0)
        while time.process_time() < end:
            pass
        if job.get("deed") == "abort":
            os.abort()
        if job.get("deed") == "exit":
            os._exit(int(job["status"]))
        os.write(job["output"], job["word"].encode())
    return 0
"""


class Words:
    """Work whose jobs write a word each; what came of them is in `ended`."""

    def __init__(
        self, name: str, rank: int, jobs: list[dict[str, object]], order: list[str]
    ) -> None:
        self.name, self.rank = name, rank
        self.ended: list[tuple[str, str]] = []
        self.tasks = 0
        self._waiting = jobs
        self._order = order
        self._running: list[dict[str, object]] = []
        self._file = os.memfd_create("words")

    @property
    def pending(self) -> int:
        return len(self._waiting) + len(self._running)

    def costs(self) -> list[float]:
        return [0.01 for _ in self._waiting]

    def begin(self) -> Task | None:
        self._order.append(self.name)
        self._running, self._waiting = self._waiting, []
        jobs = [{"cost_s": 0.01, "output": self._file, **job} for job in self._running]
        return Task("children_of_the_test", jobs, [self._file], LIMIT_S)

    def finish(self, done: int, fault: str) -> None:
        self.tasks += 1
        for number, job in enumerate(self._running):
            word = str(job["word"])
            if number < done:
                self.ended.append((word, "done"))
            elif number == done and fault:
                self.ended.append((word, fault))
            else:
                self._waiting.append(job)
        self._running = []

    def written(self) -> bytes:
        return os.pread(self._file, 1000, 0)


def words(*many: str, **more: object) -> list[dict[str, object]]:
    return [{"word": word, **more} for word in many]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "children_of_the_test.py").write_text(CHILD)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.fixture
def order() -> Iterator[list[str]]:
    """The kinds of work whose children were started."""
    yield []


def run(children: Children, is_over: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT_S
    while not is_over():
        assert time.monotonic() < end
        children.step()
        time.sleep(0.01)


@pytest.mark.usefixtures("module")
def test_the_lowest_rank_comes_first_and_one_child_does_many_jobs(order: list[str]) -> None:
    children = Children()
    later = Words("later", 2, words("c"), order)
    first = Words("first", 1, words("a", "b"), order)
    children.add(later)
    children.add(first)
    assert children.status()["pending"] == {"first": 2, "later": 1}
    assert children.pending == 3
    run(children, lambda: not later.pending and not first.pending)
    assert order == ["first", "later"]
    assert first.ended == [("a", "done"), ("b", "done")]
    assert (first.written(), later.written()) == (b"ab", b"c")
    assert children.started == 2
    assert children.cpu_s > 0


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize(
    ("more", "fault"),
    [({"deed": "abort"}, "signal 6"), ({"deed": "exit", "status": 3}, "exit status 3")],
)
def test_a_job_that_ends_its_child_costs_only_itself(
    more: dict[str, object], fault: str, order: list[str]
) -> None:
    children = Children()
    jobs = words("a") + words("bad", **more) + words("b", "c")
    work = Words("words", 0, jobs, order)
    children.add(work)
    run(children, lambda: not work.pending)
    assert dict(work.ended) == {
        "a": "done",
        "bad": f"the reader of the file ended with {fault}",
        "b": "done",
        "c": "done",
    }
    assert children.started == 2


@pytest.mark.usefixtures("module")
def test_a_child_that_gives_up_without_a_word_is_not_tried_for_ever(order: list[str]) -> None:
    children = Children()
    work = Words("words", 0, words("a", "b", deed="exit", status=0), order)
    children.add(work)
    run(children, lambda: not work.pending)
    assert [fault for _, fault in work.ended] == [
        "the reader of the file ended with exit status 0"
    ] * 2


@pytest.mark.usefixtures("module")
def test_a_child_leaves_the_jobs_that_the_ration_does_not_hold(order: list[str]) -> None:
    # Half a second of CPU a second: before the first child is there it must not come to two jobs.
    ration = Ration(50.0, 1, time.monotonic())
    children = Children(ration)
    ration.pay(ration.left_s(time.monotonic()) - 0.5)
    work = Words("words", 0, words("a", "b", "c", burn_s=1.0), order)
    children.add(work)
    run(children, lambda: not work.pending)
    assert [word for word, _ in work.ended] == ["a", "b", "c"]
    assert all(state == "done" for _, state in work.ended)
    assert work.tasks >= 2


@pytest.mark.usefixtures("module")
def test_without_credit_nothing_starts_and_a_child_is_paid_for(order: list[str]) -> None:
    ration = Ration(0.5, 2, time.monotonic())
    children = Children(ration)
    ration.pay(1000.0)
    work = Words("words", 0, words("a", burn_s=0.2), order)
    children.add(work)
    for _ in range(5):
        children.step()
    assert order == []
    assert children.status()["left_s"] < -900
    ration.pay(-1000.0)
    run(children, lambda: not work.pending)
    assert ration.left_s(time.monotonic()) < 0
    assert children.status()["cpu_s"] >= 0.2


@pytest.mark.usefixtures("module")
def test_ending_a_work_ends_its_child_only(order: list[str]) -> None:
    children = Children()
    work = Words("words", 0, words("a", burn_s=1000.0), order)
    other = Words("other", 1, [], order)
    children.add(work)
    children.add(other)
    children.step()
    assert children.status()["running"] == "words"
    children.end(other)
    assert children.status()["running"] == "words"
    children.end(work)
    assert children.status()["running"] == ""
    assert work.ended == []
    assert work.pending == 1


@pytest.mark.usefixtures("module")
def test_the_agents_own_cost_is_what_its_children_did_not_use(order: list[str]) -> None:
    now_s = time.monotonic()
    ration = Ration(50.0, 1, now_s)
    children = Children(ration)
    work = Words("words", 0, words("a", burn_s=0.5), order)
    children.add(work)
    run(children, lambda: not work.pending)
    cpus = os.sysconf("SC_NPROCESSORS_ONLN")
    for _ in range(20):
        children.note_own(0.0, 10**9)
    idle_percent = ration.share_percent(now_s)
    children._noted_s = 0.0
    for _ in range(20):
        children._noted_s = 0.0
        children.note_own(10.0 + 100 * children.cpu_s / cpus, 10**9)
    assert idle_percent == pytest.approx(50.0, abs=0.1)
    assert ration.share_percent(now_s) == pytest.approx(40.0, abs=0.1)


@pytest.mark.usefixtures("module")
def test_there_is_nothing_to_do_but_to_wait_for_a_child_or_for_credit(order: list[str]) -> None:
    ration = Ration(0.5, 2, time.monotonic())
    children = Children(ration)
    assert children.wait_s() == math.inf  # no work
    work = Words("words", 0, words("a"), order)
    children.add(work)
    ration.pay(1000.0)
    assert children.wait_s() > 1000.0  # a hundredth of a second a second
    ration.pay(-1000.0)
    assert children.wait_s() == 0.0
    children.step()
    assert children.status()["running"] == "words"
    assert children.wait_s() == math.inf  # its end is a signal
    run(children, lambda: not work.pending)
