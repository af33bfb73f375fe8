"""Every setting of the agent: its section, its type and what is allowed. Pure."""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from node_agent.presets import EVERY_COLLECTOR, find_preset
from wire.limits import MAX_RATE_HZ

MAX_CONFIG_LABELS = 16
MAX_LABEL_BYTES = 512
# `host` is the node's name; the others are what the agent itself finds.
_RESERVED_LABELS = ("host", "service", "executable", "container", "runtime", "build_id")


class SettingError(ValueError):
    """One faulty value: names the field, the value and what is allowed."""


class Setting(NamedTuple):
    """`parse` takes the raw value (of TOML, or text) and returns the checked one, or raises
    ValueError; `allowed` finishes the sentence "it must be ..."."""

    name: str
    section: str
    parse: Callable[[Any], Any]
    allowed: str


def parse(setting: Setting, value: Any) -> Any:
    """The checked value of `setting`. Raises SettingError."""
    try:
        return setting.parse(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise SettingError(f"{setting.name} is {value!r}; it must be {setting.allowed}") from error


def check_labels(labels: Any) -> dict[str, str]:
    """Labels that every sample of this node carries. Raises SettingError."""
    if not isinstance(labels, dict):
        raise SettingError(f"labels is {labels!r}; it must be a table of name = value")
    if len(labels) > MAX_CONFIG_LABELS:
        raise SettingError(f"labels has {len(labels)} entries; at most {MAX_CONFIG_LABELS}")
    for name, value in labels.items():
        plain = name.isascii() and name.isidentifier() and len(name) <= MAX_LABEL_BYTES
        if not plain or name in _RESERVED_LABELS:
            raise SettingError(
                f"label name is {name!r}; it must be letters, digits and underscores, "
                f"not start with a digit and not be {' or '.join(_RESERVED_LABELS)}"
            )
        if not isinstance(value, str) or "\0" in value or not 0 < _bytes(value) <= MAX_LABEL_BYTES:
            raise SettingError(
                f"label {name} is {value!r}; it must be text of 1 to {MAX_LABEL_BYTES} bytes"
            )
    return labels


def nearest(name: str, known: Iterable[str], likeness: float = 0.5, prefix: str = "") -> str:
    """The text "; did you mean {prefix}X?" for the known name X most like `name`, else ""."""
    from difflib import get_close_matches

    near = get_close_matches(name, list(known), n=1, cutoff=likeness)
    return f"; did you mean {prefix}{near[0]}?" if near else ""


def _bytes(text: str) -> int:
    return len(text.encode())


def _integer(low: int, high: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ValueError
        number = int(value)
        if not low <= number <= high:
            raise ValueError
        return number

    return read


def _real(low: float, high: float, *, above: bool = False) -> Callable[[Any], float]:
    """A number from `low` (with `above`: more than `low`) to `high`."""

    def read(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError
        number = float(value)
        if not math.isfinite(number) or not low <= number <= high or (above and number == low):
            raise ValueError
        return number

    return read


def _node_name(value: Any) -> str:
    if not isinstance(value, str) or not 0 < _bytes(value) <= 253 or not value.isprintable():
        raise ValueError
    return value


def _path(value: Any) -> Path:
    if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        raise ValueError
    return Path(value)


def _preset(value: Any) -> str:
    return find_preset(value if isinstance(value, str) else repr(value)).name


def _switch(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if value not in ("true", "false"):
        raise ValueError
    return bool(value == "true")


def _collectors(value: Any) -> tuple[str, ...]:
    names = value.replace(",", " ").split() if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or any(name not in EVERY_COLLECTOR for name in names):
        raise ValueError
    return tuple(dict.fromkeys(names))


def _mode(value: Any) -> str:
    if value not in ("auto", "core", "bcc"):
        raise ValueError
    return str(value)


def _url(value: Any) -> str:
    from urllib.parse import urlsplit

    if not isinstance(value, str) or not value.isascii() or not value.isprintable():
        raise ValueError
    parts = urlsplit(value)
    _ = parts.port  # raises ValueError when it is not a port
    bad = parts.scheme not in ("http", "https") or not parts.hostname or " " in value
    if bad or parts.username is not None or parts.query or parts.fragment:
        raise ValueError
    return value.rstrip("/")


def _proxy(value: Any) -> str:
    # What it means is read by the shipper, whose words about it leave its password out.
    if not isinstance(value, str) or not value:
        raise ValueError
    return value


SETTINGS = {
    setting.name: setting
    for setting in (
        Setting("name", "agent", _node_name, "1 to 253 bytes of printable text"),
        Setting("preset", "agent", _preset, "the name of a preset"),
        Setting(
            "rate_hz", "agent", _integer(1, MAX_RATE_HZ), f"a whole number of 1 to {MAX_RATE_HZ} Hz"
        ),
        Setting(
            "interval_s", "agent", _real(0, 3600, above=True), "above 0 and at most 3600 seconds"
        ),
        Setting("max_samples", "agent", _integer(1, 10_000_000), "a whole number of 1 to 10000000"),
        Setting("spool_dir", "agent", _path, "the path of a folder"),
        Setting(
            "spool_limit_bytes",
            "agent",
            _integer(1 << 20, 1 << 40),
            "a whole number of 1048576 (1 MiB) to 1099511627776 (1 TiB) bytes",
        ),
        Setting(
            "budget_percent",
            "agent",
            _real(0, 100, above=True),
            "above 0 and at most 100 percent of the host",
        ),
        Setting(
            "budget_user_percent",
            "agent",
            _real(0, 100, above=True),
            "above 0 and at most 100 percent of one core",
        ),
        Setting("head_start_s", "agent", _real(0, 60), "0 to 60 seconds of CPU time"),
        Setting("mode", "agent", _mode, "auto, core or bcc"),
        Setting("unwind", "agent", _switch, "true or false"),
        Setting("python_frames", "agent", _switch, "true or false"),
        Setting(
            "unwind_limit_bytes",
            "agent",
            _integer(1 << 20, 20 << 20),
            "a whole number of 1048576 (1 MiB) to 20971520 (20 MiB) bytes",
        ),
        Setting(
            "on_demand_max_rate_hz",
            "agent",
            _integer(0, MAX_RATE_HZ),
            f"a whole number of 0 (no profiles on demand) to {MAX_RATE_HZ} Hz",
        ),
        Setting(
            "on_demand_collectors",
            "agent",
            _collectors,
            f"a list of {', '.join(EVERY_COLLECTOR)}",
        ),
        # The aggregator accepts nothing older than 48 hours.
        Setting(
            "spool_limit_age_s", "agent", _real(60, 172_800), "60 to 172800 seconds (48 hours)"
        ),
        Setting(
            "url", "ship", _url, "http://HOST[:PORT][/PATH] or https://..., without user or query"
        ),
        Setting("token_file", "ship", _path, "the path of a file"),
        Setting("ca_file", "ship", _path, "the path of a file"),
        Setting(
            "proxy", "ship", _proxy, "http://[USER:PASSWORD@]HOST[:PORT], or direct for no proxy"
        ),
        Setting("timeout_s", "ship", _real(0, 300, above=True), "above 0 and at most 300 seconds"),
    )
}
