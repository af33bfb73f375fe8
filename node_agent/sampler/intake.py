"""What the sampler makes of stacks and counts: batches and definitions in the spool."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from node_agent import VERSION
from node_agent.capabilities import OTHER_PROCESSES, using
from node_agent.children.ration import Ration
from node_agent.children.runner import Children
from node_agent.collectors.rate import effective_rate_hz
from node_agent.collectors.stacks import Interval, RawStack
from node_agent.config import AgentConfig
from node_agent.cpython.inspector import Inspector
from node_agent.cpython.maps import PythonMaps
from node_agent.cpython.programs import PythonPrograms
from node_agent.errors import SpoolError
from node_agent.faults import Faults
from node_agent.kernel.cpus import online_cpus
from node_agent.kernel.unwind_maps import UnwindMaps
from node_agent.log import Log
from node_agent.normalize import MAX_CACHED_STACKS, Normalizer
from node_agent.processes.excluded import ExcludedProcesses
from node_agent.processes.identity import Identities
from node_agent.sampler.batches import build_columns
from node_agent.sampler.definitions import DefinitionBook, build_definitions, split_by_text
from node_agent.sampler.events import Events
from node_agent.sampler.extraction import Extractor
from node_agent.sampler.facts import config_facts
from node_agent.sampler.forgetting import Forgetting
from node_agent.spool import Spool
from node_agent.symbols.kallsyms import KernelFrames
from node_agent.symbols.modules import ModuleRegistry
from node_agent.unwind.builder import RowBuilder
from node_agent.unwind.cache import RowCache
from node_agent.unwind.unwinder import Unwinder, split_limit
from wire.schema import Batch, Definitions, Overhead

COLLECTOR = "cpu"
MAX_STACKS = 8_192  # of an interval, 1 to 2 KB each: with more it ends early


class _Held(NamedTuple):
    """A batch that the spool could not take, kept for one interval."""

    batch: Batch
    definitions: Definitions | None
    hashes: list[bytes]


class Intake:
    """One run: its identity, its dictionary and its sequence of batches.

    `lost` counts what this run had to give up: `intervals` that the disk did not take in time.
    """

    def __init__(
        self,
        config: AgentConfig,
        spool: Spool,
        facts: dict[str, str],
        unwind_maps: UnwindMaps | None = None,
        folder: Path | None = None,
        log: Log | None = None,
    ) -> None:
        """With `unwind_maps` user stacks are walked by rows, which are kept in `folder`."""
        self.facts = facts  # of this run; every batch carries them
        self.run = os.urandom(16)
        self.sequence = 0
        self.started_at = time.time()
        self.lost: dict[str, int] = {}
        self.stack_ends: dict[str, int] = {}  # samples of the last interval, by reason
        self.events = Events()
        self.faults = Faults(log, self._tell_fault)
        self.registry = ModuleRegistry(self.faults)
        self.definitions = DefinitionBook(min(config.max_samples, MAX_CACHED_STACKS))
        self.normalizer = Normalizer(
            self.registry, KernelFrames(self.registry), self.definitions, config.max_samples
        )
        self.identities = Identities(
            dict(config.labels), self.normalizer.main_build_id, self.faults
        )
        if config.exclude:
            excluded = ExcludedProcesses(config.exclude)
            self.normalizer.is_excluded = self.identities.is_excluded = excluded.covers
        cpus = len(online_cpus())
        ration = Ration(config.budget_percent, cpus, time.monotonic(), config.head_start_s)
        self.children = Children(ration, self.faults)
        self.extractor = Extractor(spool, self.registry, config.name, self.children)
        self.forgetting = Forgetting(
            self.normalizer, self.definitions, self.identities, self.registry
        )
        self.unwinder: Unwinder | None = None
        if unwind_maps is not None:
            cache = RowCache(folder / "rows") if folder is not None else None
            self.unwinder = Unwinder(
                unwind_maps,
                self.registry,
                RowBuilder(cache, self.children),
                self.normalizer.space,
                *split_limit(config.unwind_limit_bytes),
            )
            self.normalizer.signals = self.unwinder.signals
            self.forgetting.unwinder = self.unwinder
        self.programs: PythonPrograms | None = None
        self._config = config
        self._spool = spool
        self._held: _Held | None = None
        self._stacks = 0  # of this interval
        self._early: list[RawStack] = []

    def read_python(self, maps: PythonMaps | None) -> None:
        """From now on have the frames of Python programs read, where there are `maps` for it."""
        if maps is not None:
            self.programs = PythonPrograms(
                maps,
                self.registry,
                self.normalizer.space,
                Inspector(self.children),
                self.normalizer.python.spent,
            )
            self.forgetting.programs = self.programs
            self.normalizer.python.forget = maps.forget_names

    def add(self, raw: RawStack, ended: int | None = None) -> None:
        """Take a stack. While interval `ended` is being closed, stacks of the one after it wait,
        so that their definitions come with the batch that counts them."""
        if ended is not None and raw.interval > ended:
            self._early.append(raw)
        else:
            self._stacks += 1
            self.normalizer.add(raw)
        if self.unwinder is not None:
            self.unwinder.note(raw)
        if self.programs is not None:
            self.programs.note(raw)
        # Now: at the end of the interval it may have ended.
        self.identities.labels(raw.process, raw.cgroup_id, raw.thread_name, raw.is_kernel_thread)

    def put(
        self,
        interval: Interval,
        overhead: Overhead,
        rate_hz: int,
        facts: Mapping[str, str],
    ) -> None:
        """Store the interval as the next batch, with `facts` of its own and the `events` that
        wait. Raises SpoolError; the batch is then kept and tried once more with the next one."""
        self.children.note_own(overhead.cpu_percent, interval.duration_ns)
        if self.unwinder is not None:
            self.unwinder.end_interval(interval.counts)
        if self.programs is not None:
            self.programs.end_interval(interval)
        with using(*OTHER_PROCESSES):
            columns = build_columns(interval.counts, self.normalizer, self.identities)
        stacks, left = split_by_text(self.definitions.take(), self.registry)
        self.definitions.defer(left)
        definitions = build_definitions(self._config.name, self.run, stacks, self.registry)
        self.sequence += 1
        lost = {reason: n for reason, n in interval.lost.items() if reason != "ring_full"}
        if columns.lost:
            lost["batch_full"] = columns.lost
        batch = Batch(
            node=self._config.name,
            run=self.run,
            sequence=self.sequence,
            start_ns=interval.start_ns,
            duration_ns=max(1, interval.duration_ns),
            rate_millihertz=rate_hz * 1000,
            collector=COLLECTOR,
            online_cpus=len(online_cpus()),
            series=columns.series,
            stack_hashes=columns.stack_hashes,
            series_index=columns.series_index,
            counts=columns.counts,
            lost=lost,
            overhead=overhead,
            agent_version=VERSION,
            facts={
                **self._facts(),
                "effective_hz": f"{effective_rate_hz(interval, len(online_cpus())):.1f}",
                **facts,
            },
            stack_ends=columns.stack_ends,
            events=self.events.take(),
            python_ends=columns.python_ends,
        )
        self.stack_ends = columns.ends()
        self.normalizer.end_interval()
        self.forgetting.end_interval()
        with using(*OTHER_PROCESSES):
            for raw in self._early:
                self.normalizer.add(raw)
        self._stacks = len(self._early)
        self._early.clear()
        self._store(_Held(batch, definitions, list(stacks)))

    def step(self) -> None:
        """Go on with what is under way beside the samples; never waits."""
        self.extractor.step()
        if self.unwinder is not None:
            self.unwinder.step()
        if self.programs is not None:
            self.programs.step()

    @property
    def is_full(self) -> bool:
        """Whether the interval should end now: all of it is held until its batch is written."""
        return self._stacks >= MAX_STACKS or self.definitions.is_full

    @property
    def wait_s(self) -> float:
        """How long `step` will have nothing to do, if nothing new comes and no child ends."""
        is_idle = self.unwinder is None or self.unwinder.is_idle
        return self.children.wait_s() if is_idle else 0.0

    def obey(self, directive: dict[str, Any]) -> None:
        """Carry out a checked directive (see node_agent.spool.directives)."""
        if directive["kind"] == "define":
            self.definitions.forget([bytes.fromhex(text) for text in directive["hashes"]])
        else:
            self.extractor.request(directive["module_kind"], bytes.fromhex(directive["build_id"]))

    def close(self) -> None:
        """End a running child. What is still held is lost, counted."""
        self.extractor.close()
        if self.unwinder is not None:
            self.unwinder.close()
        if self.programs is not None:
            self.programs.close()

    def _store(self, new: _Held) -> None:
        held, self._held = self._held, None
        waiting = [held, new] if held is not None else [new]
        for position, item in enumerate(waiting):
            try:
                self._spool.put_batch(item.batch, item.definitions)
            except SpoolError:
                for given_up in waiting[position:-1]:
                    # A gap in the sequence tells the centre; the stacks are defined again.
                    self._count("intervals")
                    self.events.put_back(given_up.batch.events)
                    self.definitions.forget(given_up.hashes)
                self._held = new
                raise

    def _facts(self) -> dict[str, str]:
        # Why this interval may have cost more than the budget: each file is read once.
        pending = self.children.pending
        learning = {"learning": str(pending)} if pending else {}
        return dict(config_facts(self._config)) | self.facts | learning

    def _tell_fault(self, reason: str, words: str, count: int) -> None:
        self.events.add("fault", reason, words, count)

    def _count(self, reason: str) -> None:
        self.lost[reason] = self.lost.get(reason, 0) + 1
