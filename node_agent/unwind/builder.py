"""Unwind rows on demand: from the cache, or made by a child."""

import os
import time
from collections import deque
from typing import NamedTuple

from node_agent.capabilities import OTHER_PROCESSES, using
from node_agent.children.runner import Children, Task
from node_agent.processes.errors import FileUnavailableError
from node_agent.symbols.modules import Source
from node_agent.unwind.cache import RowCache
from node_agent.unwind.child import WALL_S, read_result
from node_agent.unwind.mapped_image import open_source
from node_agent.unwind.requests import Job, Request, again_of, close_source, cost_s
from node_agent.unwind.row_file import MAX_FILE_BYTES
from node_agent.unwind.rows import PackedRows

MAX_QUEUED = 512
MAX_AT_ONCE = 12  # files a child
MAX_BYTES_A_STEP = 4 << 20  # of cached rows
REFUSED_S = 3_600.0  # that a refusal is remembered
MAX_REFUSED = 4_096
_CHILD = "node_agent.unwind.child"


class Built(NamedTuple):
    """What became of a request: rows, or the reason why there are none."""

    build_id: bytes
    rows: PackedRows | None
    refused: str


class RowBuilder:
    """Has rows of files made by `children`, and keeps them in `cache` where there is one.

    `counts` tells what became of the requests: `cached`, `made`, `refused`, `queue_full`, `again`
    (their child was ended by another file).
    """

    name = "rows"
    rank = 1

    def __init__(self, cache: RowCache | None = None, children: Children | None = None) -> None:
        self.counts: dict[str, int] = {}
        self.last_error = ""
        self._cache = cache
        self._new: deque[Request] = deque()
        self._queue: deque[Request] = deque()  # those that a child has to make
        self._jobs: list[Job] = []
        self._built: list[Built] = []
        self._refusals: dict[bytes, tuple[float, str]] = {}
        self._children = children or Children()
        self._children.add(self)

    def request(self, build_id: bytes, source: Source | int) -> bool:
        """Ask for the rows of a build, which a later `step` answers once.

        `source` is where it is mapped, or a descriptor of the file, which is closed here whatever
        happens. False, counted, when too many requests are waiting. Asking twice is no error.
        """
        if len(self._new) + len(self._queue) >= MAX_QUEUED:
            self._count("queue_full")
        elif not self._is_asked(build_id):
            is_known = build_id in self._refusals or (
                self._cache is not None and self._cache.holds(build_id)
            )
            queue = self._new if is_known else self._queue
            queue.append(Request(build_id, source, cost_s(source)))
            return True
        else:
            close_source(source)
            return True
        close_source(source)
        return False

    @property
    def pending(self) -> int:
        """Requests without an answer yet."""
        return len(self._new) + len(self._queue) + len(self._jobs) + len(self._built)

    @property
    def has_answers(self) -> bool:
        """Whether `step` will answer something without a child."""
        return bool(self._new or self._built)

    def prefer(self, weights: dict[bytes, int]) -> None:
        """Let the builds of the largest weights be made first."""
        self._queue = deque(sorted(self._queue, key=lambda r: -weights.get(r.build_id, 0)))

    def step(self) -> list[Built]:
        """Answer from the cache what can be, let children make the rest. The answers."""
        self._look_up()
        self._children.step()
        built, self._built = self._built, []
        return built

    def costs(self) -> list[float]:
        """See node_agent.children.runner.Work, also for `begin` and `finish`."""
        return [request.cost_s for request, _ in zip(self._queue, range(MAX_AT_ONCE), strict=False)]

    def begin(self) -> Task | None:
        while self._queue and len(self._jobs) < MAX_AT_ONCE:
            job = self._open(self._queue.popleft())
            if job is not None:
                self._jobs.append(job)
        if not self._jobs:
            return None
        asked = [
            {
                "build_id": job.request.build_id.hex(),
                "input": job.input,
                "output": job.output,
                "is_image": job.is_image,
                "cost_s": job.request.cost_s,
            }
            for job in self._jobs
        ]
        descriptors = [descriptor for job in self._jobs for descriptor in (job.input, job.output)]
        return Task(_CHILD, asked, descriptors, WALL_S * len(asked))

    def finish(self, done: int, fault: str) -> None:
        jobs, self._jobs = self._jobs, []
        again: list[Request] = []
        for number, job in enumerate(jobs):
            if number < done:
                self._take(job)
            elif number == done and fault:
                self._refuse(job, fault)
            else:
                again.append(again_of(job))
        if fault:
            self.counts["again"] = self.counts.get("again", 0) + len(again)
        self._queue.extendleft(reversed(again))

    def close(self) -> None:
        """End a running child and forget what was asked for."""
        self._children.end(self)
        for request in (*self._new, *self._queue):
            close_source(request.source)
        self._new.clear()
        self._queue.clear()

    def _is_asked(self, build_id: bytes) -> bool:
        running = (job.request for job in self._jobs)
        return any(request.build_id == build_id for request in (*self._new, *self._queue, *running))

    def _look_up(self) -> None:
        answered_bytes = 0
        while self._new and answered_bytes < MAX_BYTES_A_STEP:
            request = self._new.popleft()
            answer = self._remembered(request.build_id)
            if answer is None:
                self._queue.append(request)
                continue
            close_source(request.source)
            self._built.append(answer)
            answered_bytes += len(answer.rows.rows) if answer.rows is not None else 0

    def _remembered(self, build_id: bytes) -> Built | None:
        refused = self._refusals.get(build_id)
        if refused is not None:
            if time.monotonic() < refused[0]:
                self._count("refused")
                return Built(build_id, None, refused[1])
            del self._refusals[build_id]
        rows = self._cache.get(build_id) if self._cache is not None else None
        if rows is None:
            return None
        self._count("cached")
        return Built(build_id, rows, "")

    def _open(self, request: Request) -> Job | None:
        opened = self._children.faults.contain(
            "rows", (request.build_id,), lambda: _open_input(request.source)
        )
        if opened is None or isinstance(opened, str):
            # Not remembered here: the next process may have the file.
            self._count("refused")
            self.last_error = opened or "the file cannot be opened"
            self._built.append(Built(request.build_id, None, self.last_error))
            return None
        descriptor, is_image = opened
        try:
            output = os.memfd_create("unwind rows", os.MFD_CLOEXEC)
        except OSError as error:
            os.close(descriptor)
            self._built.append(Built(request.build_id, None, f"no room: {error.strerror}"))
            return None
        return Job(request, descriptor, output, is_image)

    def _take(self, job: Job) -> None:
        size = min(os.fstat(job.output).st_size, MAX_FILE_BYTES)
        data = os.pread(job.output, size, 0)
        build_id = job.request.build_id
        made = self._children.faults.contain(
            "rows", (build_id,), lambda: read_result(build_id, data)
        )
        if not isinstance(made, PackedRows):
            self._refuse(job, made or "the reader of the file wrote nonsense")
            return
        if self._cache is not None:
            self._cache.put(build_id, data)
        self._count("made")
        self._built.append(Built(build_id, made, ""))
        os.close(job.input)
        os.close(job.output)

    def _refuse(self, job: Job, reason: str) -> None:
        build_id = job.request.build_id
        while len(self._refusals) >= MAX_REFUSED:
            del self._refusals[next(iter(self._refusals))]
        self._refusals[build_id] = time.monotonic() + REFUSED_S, reason
        self._count("refused")
        self.last_error = reason
        self._built.append(Built(build_id, None, reason))
        os.close(job.input)
        os.close(job.output)

    def _count(self, reason: str) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + 1


def _open_input(source: Source | int) -> tuple[int, bool] | str:
    """A descriptor of what is read and whether it is an image of memory; else why there is none."""
    if isinstance(source, int):
        return source, False
    try:
        with using(*OTHER_PROCESSES):
            return open_source(source)
    except FileUnavailableError as error:
        return str(error)
