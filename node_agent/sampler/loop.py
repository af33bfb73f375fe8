"""The sampler's loop: poll, build batches, obey directives, say how it goes."""

import gc
import os
import signal
import time
from collections.abc import MutableMapping
from contextlib import closing
from functools import partial

from node_agent.breaker import Opened
from node_agent.capabilities import KERNEL_PROGRAMS, OTHER_PROCESSES, using
from node_agent.collectors.cpu import CpuCollector
from node_agent.config import AgentConfig
from node_agent.errors import EXIT_DETACHED, AgentError, SpoolError
from node_agent.heap import give_back
from node_agent.kernel.descriptor_store import DescriptorStore
from node_agent.kernel.errors import PerfEventError
from node_agent.log import Log
from node_agent.overhead import Calibration, Meter, calibrate_interrupt_ns
from node_agent.overhead.usage import MemoryAccount
from node_agent.sampler.chores import Chores
from node_agent.sampler.detached import breaker_facts, report_detached
from node_agent.sampler.facts import mode_facts
from node_agent.sampler.features import PythonFrames
from node_agent.sampler.governing import Governing
from node_agent.sampler.intake import Intake
from node_agent.sampler.notify import Notifier
from node_agent.sampler.on_demand import OnDemand, on_demand_facts
from node_agent.sampler.start_words import say_start
from node_agent.sampler.status import SamplerStatus, parse_shipper_usage, read_shipper_report
from node_agent.sampler.waiting import Waiter
from node_agent.sampler.warnings import OverheadWarnings, UnitWarnings
from node_agent.sampler.watch import Watch, state_folder
from node_agent.spool import Spool, directives

POLL_S = 0.5  # between two polls at least, whatever calls
IDLE_S = 2.0  # and at most: also how often directives are looked for
ROTATE_EVERY_S = 60.0  # what is not seen for one to two minutes is forgotten
GIVE_BACK_EVERY_S = 30.0
CALIBRATE_EVERY_S = 86_400.0  # a virtual machine may have moved to another host
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def run_sampler(
    config: AgentConfig, environ: MutableMapping[str, str] = os.environ, is_reset: bool = False
) -> int:
    """Sample until SIGTERM or SIGINT, then write what is left; returns the exit code.

    Where the breaker (node_agent.breaker) keeps the agent detached it reports that, samples
    nothing, and returns EXIT_DETACHED; `is_reset` closes the breaker first.
    Blocks both signals in the calling thread while it runs. Raises SpoolError or KernelError when
    it cannot start; afterwards trouble is counted, said, and outlived.
    """
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        return _run(config, environ, is_reset)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def _run(config: AgentConfig, environ: MutableMapping[str, str], is_reset: bool) -> int:
    lines = Log("run")
    notifier = Notifier(environ)
    spool = Spool(config.spool_dir, config.spool_limit_bytes, config.spool_limit_age_s)
    spool.create()
    watch = Watch(state_folder(config, environ))
    store = DescriptorStore(environ)
    opened = watch.begin(is_reset)
    if opened is not None:
        store.discard()
        report_detached(config, spool, opened, notifier, watch.file)
        return EXIT_DETACHED
    collector = CpuCollector(
        config.rate_hz,
        config.max_samples,
        config.interval_s,
        mode=config.mode,
        exclude=config.exclude,
        store=store,
        unwind=config.unwind,
        python=config.python_frames,
    )
    try:
        with using(*KERNEL_PROGRAMS):
            calibration = calibrate_interrupt_ns()
            collector.start()
    except AgentError:  # a refusal in words is no crash
        watch.end()
        raise
    try:
        facts = mode_facts(collector) | on_demand_facts(config)
        intake = Intake(config, spool, facts, collector.unwind_maps, watch.file.parent, lines)
        intake.read_python(collector.python_maps)
        loop = _Loop(config, spool, collector, calibration, intake, watch, lines)
        say_start(config, collector, intake, watch, lines)
        # What lives now lives as long as the process: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        give_back()
        notifier.send("READY=1\nSTATUS=sampling")
        with closing(Waiter(_SIGNALS, collector.call_fd)) as waiter:
            opened = loop.run(notifier, waiter)
    finally:
        collector.stop()
    watch.end()
    if opened is not None:
        store.discard()
        report_detached(config, spool, opened, notifier, watch.file)
        return EXIT_DETACHED
    lines.info("stop", "stopped", run=intake.run.hex(), batches=intake.sequence)
    return 0


class _Loop:
    """What one run holds."""

    def __init__(
        self,
        config: AgentConfig,
        spool: Spool,
        collector: CpuCollector,
        calibration: Calibration,
        intake: Intake,
        watch: Watch,
        log: Log,
    ) -> None:
        self._config = config
        self._log = log
        self._spool = spool
        self._collector = collector
        self._meter = Meter(collector, calibration, intake.normalizer.python.spent)
        self._intake = intake
        self._watch = watch
        features = [PythonFrames(collector)] if collector.python_maps is not None else []
        events = intake.events
        self._governing = Governing(
            config, collector, features, events, config.on_demand_max_rate_hz, log
        )
        self._overhead_warnings = OverheadWarnings(log)
        # Now: with a child beside it the process would not be alone in its unit's group.
        self._unit_warnings = UnitWarnings(log, events, MemoryAccount().group, watch.was_killed)
        self._unit_warnings.look(read_shipper_report(spool))
        if watch.is_heir_of_killed:
            self._unit_warnings.note_kill("sampler")
        self._on_demand = OnDemand(config, self._governing, log=log)
        self._status = SamplerStatus(
            config, spool, intake, self._governing, self._on_demand, self._unit_warnings
        )
        self._last_error = ""

    def run(self, notifier: Notifier, waiter: Waiter) -> Opened | None:
        """Until one of the signals, or until the breaker opens: then the reason; the interval that
        it cuts short is written too."""
        opened: Opened | None = None
        told = ""
        now = time.monotonic()
        interval_at = now + self._config.interval_s
        chores = Chores(now)
        chores.add(IDLE_S, self._obey)
        chores.add(ROTATE_EVERY_S, self._intake.forgetting.rotate)
        chores.add(GIVE_BACK_EVERY_S, give_back)
        chores.add(CALIBRATE_EVERY_S, self._calibrate)
        self._status.write()
        while not waiter.wait(POLL_S, self._patience_s(interval_at)):
            now = time.monotonic()
            self._on_demand.step()
            is_over = self._is_over(now >= interval_at)
            if not is_over:
                with using(*OTHER_PROCESSES):
                    for raw in self._collector.stacks():
                        self._intake.add(raw)
            is_full = self._intake.is_full
            if is_over or is_full:
                opened = self._watch.look()
                if opened is not None:
                    self._intake.facts |= breaker_facts(opened)
                    break
                self._end_interval()
                if is_full:
                    give_back()
                if self._last_error != told:  # also where the disk has no room for the status
                    told = self._last_error
                    notifier.send(f"STATUS={told or 'sampling'}")
                # After a suspended machine, one interval, not one for every missed one.
                began = min(interval_at, now)
                interval_at = max(began + self._governing.interval_s, now + POLL_S)
            chores.step(now)
            self._intake.step()
            notifier.is_alive()
        notifier.send("STOPPING=1")
        self._on_demand.stop()
        self._end_interval(last=True)
        self._intake.close()
        self._status.stopped()
        return opened

    def _patience_s(self, interval_at: float) -> float:
        idle_s = min(max(self._intake.wait_s, POLL_S), IDLE_S)
        return min(idle_s, interval_at - time.monotonic(), self._on_demand.wait_s)

    def _is_over(self, is_its_time: bool) -> bool:
        """Whether the running interval is to be ended now."""
        if self._governing.is_due or self._on_demand.is_due:
            return True
        return is_its_time and not self._on_demand.is_imminent

    def _end_interval(self, last: bool = False) -> None:
        with using(*KERNEL_PROGRAMS):  # before 5.19 every access to a map wants CAP_BPF
            interval = self._governing.booked(self._collector.take_interval())
        # What belongs to the next interval is left for the process that comes after this one.
        with using(*OTHER_PROCESSES):
            for raw in self._collector.stacks(interval.number if last else None):
                self._intake.add(raw, interval.number)
        shipper = read_shipper_report(self._spool)
        usage = parse_shipper_usage(shipper)
        overhead = self._meter.measure(usage, interval.duration_ns, interval.samples)
        measured_ns = time.process_time_ns()
        self._overhead_warnings.note(overhead, time.monotonic(), interval.duration_ns / 1e9)
        self._unit_warnings.look(shipper)
        rate_hz = self._governing.rate_hz
        try:
            self._intake.events.put_back(self._on_demand.take_events())
            self._intake.put(interval, overhead, rate_hz, self._governing.facts)
            self._last_error = ""
        except SpoolError as error:
            words = f"{error}; the last interval is kept in memory"
            if words != self._last_error:
                self._last_error = words
                self._log.warning("spool", words)
        late_ns = time.process_time_ns() - measured_ns
        self._governing.end_interval(overhead, interval, late_ns)
        self._status.note(interval, rate_hz, self._last_error)

    def _calibrate(self) -> None:
        try:
            with using(*KERNEL_PROGRAMS):
                self._meter.recalibrate()
        except PerfEventError as error:
            words = f"the cost of an interrupt stays as it was measured before: {error}"
            self._log.warning("calibration", words)

    def _obey(self) -> None:
        try:
            taken = self._spool.take_directives()
        except SpoolError as error:
            self._last_error = str(error)
            taken = []
        for directive in taken:
            is_profile = directive["kind"] in ("profile", "profile_end")
            obey = (self._on_demand if is_profile else self._intake).obey
            key = ("order", directives.file_name(directive, 0))
            self._intake.faults.contain("order", key, partial(obey, directive))
