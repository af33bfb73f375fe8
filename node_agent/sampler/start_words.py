"""What the sampler's log says when it has begun."""

from node_agent.collectors.cpu import CpuCollector
from node_agent.config import AgentConfig
from node_agent.log import Log
from node_agent.sampler.intake import Intake
from node_agent.sampler.watch import Watch


def say_start(
    config: AgentConfig, collector: CpuCollector, intake: Intake, watch: Watch, lines: Log
) -> None:
    """Rate, mode, preset, budget and run; what is not as it should be is a warning."""
    for mode, reason in collector.mode_reasons.items():
        lines.warning("mode", f"mode {collector.mode}, since {mode} failed: {reason}")
    lines.info(
        "start",
        f"sampling at {config.rate_hz} Hz",
        rate_hz=config.rate_hz,
        mode=collector.mode,
        preset=config.preset,
        budget_percent=config.budget_percent,
        run=intake.run.hex(),
        spool_dir=str(config.spool_dir),
    )
    if watch.log_trouble:
        lines.warning("kernel_log", watch.log_trouble)
    if collector.resumed_s is not None:
        words = f"went on with the last run's programs, which sampled {collector.resumed_s:.1f} s"
        lines.info("resumed", words)
    if collector.inherited_s is not None:
        words = f"counts what other programs sampled in {collector.inherited_s:.1f} s before"
        lines.info("inherited", words)
    if collector.has_unreadable:
        words = "lost: what programs of another version sampled since the last batch"
        lines.warning("inherited", words)
    for trouble in collector.unresolved_exclusions:
        lines.warning("exclusion", f"an exclusion has no effect until this changes: {trouble}")
