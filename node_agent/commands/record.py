"""`flamefleet-agent record`: profile this host for some seconds into a file."""

import math
import sys
from types import SimpleNamespace

from node_agent.capabilities import drop_unneeded
from node_agent.config import DEFAULT_CONFIG_FILE, load_config
from node_agent.errors import ConfigError
from node_agent.record import RecordError, Recording, record
from node_agent.record.advice import advice
from node_agent.record.name_children import ENDING
from node_agent.record.output import choose_encoder
from node_agent.record.record import WRITING
from node_agent.settings import SETTINGS, SettingError, parse
from wire.terminal import printable_line

MAX_SECONDS = 3600.0


def execute(arguments: SimpleNamespace) -> int:
    """Record, then say on stderr what is in the file."""
    seconds = arguments.seconds
    if not math.isfinite(seconds) or not 0 < seconds <= MAX_SECONDS:
        raise ConfigError(f"--seconds is {seconds:g}; it must be above 0 and at most 3600")
    try:
        parse(SETTINGS["rate_hz"], arguments.rate)
    except SettingError as error:
        raise ConfigError(str(error).replace("rate_hz", "--rate", 1)) from error
    try:
        choose_encoder(arguments.output)
    except RecordError as error:
        raise ConfigError(str(error), error.remedy) from error
    # What this host excludes holds for everyone who profiles it.
    config = load_config(DEFAULT_CONFIG_FILE if DEFAULT_CONFIG_FILE.exists() else None, {}, {})
    drop_unneeded(keep=WRITING + ENDING)
    done = record(
        seconds,
        arguments.rate,
        arguments.pid,
        arguments.output,
        sys.stderr,
        config.exclude,
        arguments.unwind,
        arguments.python,
    )
    hints = advice(done.samples, done.unnamed_jit, done.stack_ends)
    print("\n".join(map(printable_line, [describe(done), *hints])), file=sys.stderr)
    return 0


def describe(done: Recording) -> str:
    """One line about a recording: lost samples, and how many of the others' stacks are whole."""
    lost = ", ".join(f"{count} {reason}" for reason, count in sorted(done.lost.items()) if count)
    total = sum(done.stack_ends.values())
    complete = done.stack_ends.get("complete", 0)
    whole = f", {100 * complete / total:.1f} % of stacks whole" if total else ""
    return (
        f"{done.output}: {done.samples} samples in {done.duration_s:.1f} s{whole}, "
        f"lost: {lost or 'none'}"
    )
