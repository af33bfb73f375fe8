"""Unwind rows on demand: from the cache, or made by a child.

One child at a time makes the rows of several files, because starting it costs more than most of
them. A file that ends its child costs only itself: the others' rows are taken, or tried again.
"""

import json
import os
import signal
import time
from collections import deque
from contextlib import suppress
from typing import NamedTuple

from node_agent.capabilities import OTHER_PROCESSES, using
from node_agent.processes.errors import FileUnavailableError
from node_agent.processes.files import open_mapped
from node_agent.symbols.children import child_command, end_child
from node_agent.symbols.modules import Source
from node_agent.unwind.cache import RowCache
from node_agent.unwind.child import WALL_S, read_result
from node_agent.unwind.mapped_image import open_mapped_image
from node_agent.unwind.row_file import MAX_FILE_BYTES
from node_agent.unwind.rows import Rows

MAX_QUEUED = 512
MAX_AT_ONCE = 12  # files a child
MAX_BYTES_A_STEP = 4 << 20  # of cached rows
REFUSED_S = 3_600.0  # that a refusal is remembered
MAX_REFUSED = 4_096
_CHILD = "node_agent.unwind.child"


class Built(NamedTuple):
    """What became of a request: rows, or the reason why there are none."""

    build_id: bytes
    rows: Rows | None
    refused: str


class _Request(NamedTuple):
    build_id: bytes
    source: Source | int


class _Job(NamedTuple):
    """A request under way: what the child reads, a file in memory that it writes."""

    request: _Request
    input: int
    output: int
    is_image: bool


class _Child(NamedTuple):
    pid: int
    jobs: list[_Job]
    started_at: float


class RowBuilder:
    """Makes rows of files, and keeps them in `cache` where there is one. Never waits.

    `counts` tells what became of the requests: `cached`, `made`, `refused`, `queue_full`, `again`
    (their child was ended by another file); `cpu_s` is what the children have used.
    """

    def __init__(self, cache: RowCache | None = None) -> None:
        self.counts: dict[str, int] = {}
        self.last_error = ""
        self.cpu_s = 0.0
        self._cache = cache
        self._queue: deque[_Request] = deque()
        self._child: _Child | None = None
        self._refusals: dict[bytes, tuple[float, str]] = {}

    def request(self, build_id: bytes, source: Source | int) -> bool:
        """Ask for the rows of a build, which a later `step` answers once.

        `source` is where it is mapped, or a descriptor of the file, which is closed here whatever
        happens. False, counted, when too many requests are waiting. Asking twice is no error.
        """
        if len(self._queue) >= MAX_QUEUED:
            self._count("queue_full")
        elif not self._is_asked(build_id):
            self._queue.append(_Request(build_id, source))
            return True
        else:
            _close(source)
            return True
        _close(source)
        return False

    @property
    def pending(self) -> int:
        """Requests without an answer yet."""
        return len(self._queue) + (len(self._child.jobs) if self._child is not None else 0)

    def step(self) -> list[Built]:
        """Collect a child that has ended, start the next. The answers that are ready."""
        built: list[Built] = []
        if self._child is not None and not self._collect(self._child, built):
            return built
        if self._queue:
            self._begin(built)
        return built

    def close(self) -> None:
        """End a running child and forget what was asked for."""
        child, self._child = self._child, None
        if child is not None:
            end_child(child.pid)
            for job in child.jobs:
                os.close(job.input)
                os.close(job.output)
        while self._queue:
            _close(self._queue.popleft().source)

    def _is_asked(self, build_id: bytes) -> bool:
        running = self._child.jobs if self._child is not None else []
        return any(
            request.build_id == build_id
            for request in (*self._queue, *(job.request for job in running))
        )

    def _begin(self, built: list[Built]) -> None:
        """Answer from the cache what can be; start a child for what comes next."""
        jobs: list[_Job] = []
        answered_bytes = 0
        while self._queue and len(jobs) < MAX_AT_ONCE and answered_bytes < MAX_BYTES_A_STEP:
            request = self._queue.popleft()
            answer = self._remembered(request.build_id)
            if answer is not None:
                _close(request.source)
                built.append(answer)
                answered_bytes += len(answer.rows.rows) if answer.rows is not None else 0
                continue
            job = self._open(request, built)
            if job is not None:
                jobs.append(job)
        if not jobs:
            return
        try:
            self._child = _Child(_spawn(jobs), jobs, time.monotonic())
        except OSError as error:
            for job in jobs:
                self._end(job, f"no child could be started: {error.strerror}", built)

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

    def _open(self, request: _Request, built: list[Built]) -> _Job | None:
        source = request.source
        try:
            if isinstance(source, int):
                descriptor, is_image = source, False
            else:
                with using(*OTHER_PROCESSES):
                    descriptor, is_image = _open_source(source)
        except FileUnavailableError as error:
            # Not remembered: the next process may have the file.
            self._count("refused")
            self.last_error = str(error)
            built.append(Built(request.build_id, None, str(error)))
            return None
        try:
            output = os.memfd_create("unwind rows", os.MFD_CLOEXEC)
        except OSError as error:
            os.close(descriptor)
            built.append(Built(request.build_id, None, f"no room: {error.strerror}"))
            return None
        return _Job(request, descriptor, output, is_image)

    def _collect(self, child: _Child, built: list[Built]) -> bool:
        """Whether the child has ended; what it made is then in `built`."""
        pid, status, usage = os.wait4(child.pid, os.WNOHANG)
        if pid == 0:
            if time.monotonic() - child.started_at > WALL_S * len(child.jobs):
                with suppress(PermissionError):  # its own alarm ends it
                    os.kill(child.pid, signal.SIGKILL)
            return False
        self._child = None
        self.cpu_s += usage.ru_utime + usage.ru_stime
        code = os.waitstatus_to_exitcode(status)
        how = f"signal {-code}" if code < 0 else f"exit status {code}"
        again: list[_Request] = []
        is_blamed = False
        for job in child.jobs:
            size = min(os.fstat(job.output).st_size, MAX_FILE_BYTES)
            made = read_result(job.request.build_id, os.pread(job.output, size, 0))
            if isinstance(made, Rows):
                self._finish(job, made, built)
            elif made is not None:
                self._end(job, made, built)
            elif not is_blamed:
                is_blamed = True
                self._end(job, f"the reader of its unwind information ended with {how}", built)
            else:
                self._count("again")
                os.close(job.output)
                if job.is_image:
                    os.close(job.input)  # of which only the source knows what it is
                    again.append(job.request)
                else:
                    again.append(job.request._replace(source=job.input))
        self._queue.extendleft(reversed(again))
        return True

    def _finish(self, job: _Job, rows: Rows, built: list[Built]) -> None:
        if self._cache is not None:
            self._cache.put(job.request.build_id, rows)
        self._count("made")
        built.append(Built(job.request.build_id, rows, ""))
        os.close(job.input)
        os.close(job.output)

    def _end(self, job: _Job, reason: str, built: list[Built]) -> None:
        build_id = job.request.build_id
        while len(self._refusals) >= MAX_REFUSED:
            del self._refusals[next(iter(self._refusals))]
        self._refusals[build_id] = time.monotonic() + REFUSED_S, reason
        self._count("refused")
        self.last_error = reason
        built.append(Built(build_id, None, reason))
        os.close(job.input)
        os.close(job.output)

    def _count(self, reason: str) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + 1


def _spawn(jobs: list[_Job]) -> int:
    """Start a child that inherits just the descriptors of these jobs."""
    asked = [
        {
            "build_id": job.request.build_id.hex(),
            "input": job.input,
            "output": job.output,
            "is_image": job.is_image,
        }
        for job in jobs
    ]
    descriptors = [descriptor for job in jobs for descriptor in (job.input, job.output)]
    for descriptor in descriptors:
        os.set_inheritable(descriptor, True)
    try:
        command = child_command(_CHILD, [json.dumps(asked)])
        return os.posix_spawn(command[0], command, {}, setsigmask=())
    finally:
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)


def _open_source(source: Source) -> tuple[int, bool]:
    """A descriptor of a file, or of what is mapped of it where it is gone, and whether it is that.
    Raises FileUnavailableError."""
    try:
        return open_mapped(source.tgid, source.mapping), False
    except FileUnavailableError:
        return open_mapped_image(source.tgid, source.mapping), True


def _close(source: Source | int) -> None:
    if isinstance(source, int):
        os.close(source)
