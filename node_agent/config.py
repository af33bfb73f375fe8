"""The agent's configuration: read once from a TOML file, the environment and flags.

Flags beat the environment, the environment beats the file, the file beats the preset.
Environment names are FLAMEFLEET_ and the setting in capitals (FLAMEFLEET_RATE_HZ); labels are
FLAMEFLEET_LABELS="team=web,zone=a". What [agent.exclude] names is said in the file only.
"""

import os
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from node_agent.errors import ConfigError
from node_agent.exclusions import ExcludeConfig, check_exclude
from node_agent.presets import DEFAULT_PRESET, EVERY_COLLECTOR, find_preset
from node_agent.settings import SETTINGS, SettingError, check_labels, nearest, parse

ENVIRONMENT_PREFIX = "FLAMEFLEET_"
DEFAULT_CONFIG_FILE = Path("/etc/flamefleet/agent.toml")
DEFAULT_INTERVAL_S = 10.0
DEFAULT_MAX_SAMPLES = 100_000  # distinct stacks and pending samples held at once
DEFAULT_SPOOL_DIR = Path("/var/lib/flamefleet/spool")
DEFAULT_SPOOL_LIMIT_BYTES = 256 << 20
DEFAULT_SPOOL_LIMIT_AGE_S = 86_400.0
DEFAULT_TIMEOUT_S = 10.0
DEFAULT_BUDGET_USER_PERCENT = 2.0
DEFAULT_UNWIND_LIMIT_BYTES = 6 << 20
DEFAULT_ON_DEMAND_MAX_RATE_HZ = 199
DEFAULT_MODE = "auto"  # how the kernel program is loaded: the first that works of core, bcc
_MAX_CONFIG_BYTES = 1 << 20
_TABLES = ("labels", "exclude")  # of [agent]


class ShipConfig(msgspec.Struct, frozen=True):
    """Where the shipper delivers to. `url` and `token_file` are needed by `ship` only."""

    url: str | None = None
    token_file: Path | None = None
    ca_file: Path | None = None  # CAs to trust instead of the system's
    proxy: str | None = None  # its URL, or "direct"; None: as the environment says (http_proxy)
    timeout_s: float = DEFAULT_TIMEOUT_S


class AgentConfig(msgspec.Struct, frozen=True):
    """Everything that both processes of the agent are told."""

    name: str  # the node's name: `host` in queries
    preset: str
    rate_hz: int
    budget_percent: float  # overhead CPU allowed, percent of the host (from the preset)
    head_start_s: float  # CPU time of children beyond the budget, once (from the preset)
    collectors: tuple[str, ...]  # from the preset
    budget_user_percent: float = DEFAULT_BUDGET_USER_PERCENT  # user space of it, of one core
    interval_s: float = DEFAULT_INTERVAL_S
    max_samples: int = DEFAULT_MAX_SAMPLES
    spool_dir: Path = DEFAULT_SPOOL_DIR
    spool_limit_bytes: int = DEFAULT_SPOOL_LIMIT_BYTES
    spool_limit_age_s: float = DEFAULT_SPOOL_LIMIT_AGE_S
    mode: str = DEFAULT_MODE
    unwind: bool = True  # walk user stacks without frame pointers
    python_frames: bool = True  # read the frames of CPython programs
    unwind_limit_bytes: int = DEFAULT_UNWIND_LIMIT_BYTES  # of kernel memory, taken as needed
    on_demand_max_rate_hz: int = DEFAULT_ON_DEMAND_MAX_RATE_HZ  # 0: no profiles on demand
    on_demand_collectors: tuple[str, ...] = EVERY_COLLECTOR  # that profiles may be asked of
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    exclude: ExcludeConfig = msgspec.field(default_factory=ExcludeConfig)
    ship: ShipConfig = msgspec.field(default_factory=ShipConfig)


def load_config(
    path: Path | None, environ: Mapping[str, str], overrides: Mapping[str, Any]
) -> AgentConfig:
    """The configuration from the file at `path` (None: no file), `environ` and `overrides`.

    `overrides` are flags by setting name (`{"rate_hz": 49, "url": "http://..."}`); a value of
    None counts as not given. Raises ConfigError naming every faulty field, its value and what is
    allowed.
    """
    faults: list[str] = []
    values: dict[str, Any] = {}
    labels: dict[str, str] = {}
    exclude = ExcludeConfig()
    sources = (
        (_read_file(path, faults), f" (in {path})"),
        (_read_environment(environ, faults), " (from the environment)"),
        ({name: value for name, value in overrides.items() if value is not None}, ""),
    )
    for given, source in sources:
        for name, value in given.items():
            try:
                if name == "labels":
                    labels |= check_labels(value)
                elif name == "exclude":
                    exclude = check_exclude(value)
                elif name in SETTINGS:
                    values[name] = parse(SETTINGS[name], value)
                else:
                    faults.append(f"{name} is not a setting{nearest(name, SETTINGS)}{source}")
            except (SettingError, ConfigError) as error:
                faults += [f"{fault}{source}" for fault in str(error).split("\n")]
    if faults:
        raise ConfigError("\n".join(faults), "Correct the configuration and start again.")
    return _build(values, labels, exclude)


def create_recommended_config(env: str) -> AgentConfig:
    """A complete configuration for environment `env`: its preset, everything else by default.

    Raises ConfigError when `env` is unknown.
    """
    return load_config(None, {}, {"preset": find_preset(env).name})


def _build(values: dict[str, Any], labels: dict[str, str], exclude: ExcludeConfig) -> AgentConfig:
    preset = find_preset(values.pop("preset", DEFAULT_PRESET))
    ship_names = [name for name, setting in SETTINGS.items() if setting.section == "ship"]
    ship = ShipConfig(**{name: values.pop(name) for name in ship_names if name in values})
    return AgentConfig(
        name=values.pop("name", None) or os.uname().nodename,
        preset=preset.name,
        rate_hz=values.pop("rate_hz", preset.rate_hz),
        budget_percent=values.pop("budget_percent", preset.budget_percent),
        head_start_s=values.pop("head_start_s", preset.head_start_s),
        collectors=preset.collectors,
        labels=labels,
        exclude=exclude,
        ship=ship,
        **values,
    )


def _read_file(path: Path | None, faults: list[str]) -> dict[str, Any]:
    """Settings of the file, flat; unknown sections and keys go to `faults`."""
    if path is None:
        return {}
    flat: dict[str, Any] = {}
    for section, content in _parse_toml(path).items():
        if section not in ("agent", "ship"):
            faults.append(
                f"[{section}] is not a section{nearest(section, ('agent', 'ship'))} (in {path})"
            )
            continue
        if not isinstance(content, dict):
            faults.append(f"{section} is {content!r}; it must be a section [{section}] (in {path})")
            continue
        known = [name for name, setting in SETTINGS.items() if setting.section == section]
        for name, value in content.items():
            if name in known or (section == "agent" and name in _TABLES):
                flat[name] = value
            else:
                faults.append(
                    f"[{section}] {name} is not a setting{nearest(name, known)} (in {path})"
                )
    return flat


def _parse_toml(path: Path) -> dict[str, Any]:
    toml: Any = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"cannot read the configuration {path}: {error.strerror}",
            "Name an existing, readable file with --config.",
        ) from error
    if len(data) > _MAX_CONFIG_BYTES:
        raise ConfigError(f"{path} is larger than {_MAX_CONFIG_BYTES} bytes")
    try:
        parsed: dict[str, Any] = toml.loads(data.decode())
        return parsed
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError
        raise ConfigError(f"{path} is not TOML: {error}", "See https://toml.io.") from error


def _read_environment(environ: Mapping[str, str], faults: list[str]) -> dict[str, Any]:
    """Settings of the environment. The centre's commands share the prefix, so an unknown name
    is a fault only when it looks like a misspelt setting."""
    given: dict[str, Any] = {}
    known = [name.upper() for name in SETTINGS]
    for variable, value in environ.items():
        if not variable.startswith(ENVIRONMENT_PREFIX):
            continue
        name = variable[len(ENVIRONMENT_PREFIX) :].lower()
        if name == "labels":
            given[name] = dict(pair.partition("=")[::2] for pair in value.split(",") if pair)
        elif name in SETTINGS:
            given[name] = value
        elif near := nearest(name.upper(), known, 0.7, ENVIRONMENT_PREFIX):
            faults.append(f"{variable} is not a setting{near} (in the environment)")
    return given
