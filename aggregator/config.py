"""The centre's configuration: one frozen dataclass, from a TOML file, environment and flags."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aggregator.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ENVIRONMENT_PREFIX = "FLAMEFLEET_"
DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8380
HOUR_S = 3_600
DAY_S = 86_400


@dataclass(frozen=True)
class Webhook:
    """Where alerts go. `secret` signs the body (Standard Webhooks, `whsec_...` or plain text)."""

    url: str
    secret: str = field(default="", repr=False)
    allow_private: bool = False  # addresses on private networks are refused unless allowed


@dataclass(frozen=True)
class Retention:
    """How long data of each kind is kept, in seconds."""

    profiles_10s_s: int = 2 * HOUR_S
    profiles_60s_s: int = 7 * DAY_S
    overhead_s: int = 7 * DAY_S


@dataclass(frozen=True)
class Quotas:
    """The most that one node may send a second for ever, 0 for no limit; `aggregator.ingest.quotas`
    says how much at once."""

    requests: float = 25.0  # two a batch; a spool that is caught up with sends up to these
    megabytes: float = 2.0  # as decoded: 12,736 rows are 0.3 MB, their definitions 1
    rows: float = 25_600.0  # twice the samples of 64 CPUs at 199 Hz
    new_stacks: float = 1_300.0  # a tenth of these samples
    new_frames: float = 1_300.0
    new_series: float = 10.0  # sets of labels, each 512 bytes of them
    extract_megabytes: float = 2.0  # of symbols that it was asked for


@dataclass(frozen=True)
class CentreConfig:
    """Everything that aggregator, worker and beat need to know."""

    database_url: str = field(repr=False)  # postgresql://user:password@host:port/name
    broker_url: str = field(repr=False)  # redis://host:port/0 or redis+socket:///path
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    public_url: str = ""  # where browsers find the page, when a proxy is before it
    allowed_hosts: tuple[str, ...] = ()  # further names that questions are answered under
    webhooks: tuple[Webhook, ...] = ()
    retention: Retention = Retention()
    quotas: Quotas = Quotas()
    read_token_file: str = ""  # holds the token that questions and the page need; "": none needed
    overhead_cpu_percent: float = 1.0  # share of the host above which the overhead alert fires
    overhead_memory_bytes: int = 50 << 20
    symbols_upload_bytes: int = 2 << 30  # of one file of debug information
    max_connections: int = 8_192  # half of them from one address
    forget_silent_days: int = 30  # a node that was silent for so long is not listed; 0: for ever


def load_config(
    path: Path | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
) -> CentreConfig:
    """The configuration from a TOML file, then `FLAMEFLEET_*` variables, then flags.

    Without `path`, FLAMEFLEET_CONFIG may name the file. FLAMEFLEET_WEBHOOK_URL, _WEBHOOK_SECRET and
    _WEBHOOK_ALLOW_PRIVATE add one webhook. Overrides that are None are ignored. Raises ConfigError.
    """
    environ = {} if environ is None else environ
    if path is None and environ.get(ENVIRONMENT_PREFIX + "CONFIG"):
        path = Path(environ[ENVIRONMENT_PREFIX + "CONFIG"])
    values: dict[str, Any] = _read_file(path) if path is not None else {}
    _apply_environment(values, environ)
    values.update({k: v for k, v in (overrides or {}).items() if v is not None})
    known = {f.name for f in fields(CentreConfig)}
    for name in values:
        if name not in known:
            raise ConfigError(f"unknown setting {name!r}; known are {', '.join(sorted(known))}")
    return _build(values)


def _read_file(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"cannot read {path}: {error.strerror}",
            remedy="name a file that this user may read with --config",
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    if "webhooks" in values:
        if not isinstance(values["webhooks"], list):
            raise ConfigError("webhooks must be a list of tables: [[webhooks]]")
        values["webhooks"] = tuple(_table(Webhook, "webhooks", v) for v in values["webhooks"])
    for name, kind in (("retention", Retention), ("quotas", Quotas)):
        if name in values:
            values[name] = _table(kind, name, values[name])
    return values


def _table(kind: type[Any], name: str, values: object) -> Any:
    known = {f.name: f for f in fields(kind)}
    if not isinstance(values, dict) or not set(values) <= set(known):
        raise ConfigError(f"{name} may hold only {', '.join(known)}; it is {values!r}")
    try:
        return kind(**{k: _typed(f"{name}.{k}", v, known[k].type) for k, v in values.items()})
    except TypeError as error:
        raise ConfigError(f"{name} lacks a setting: {error}") from error


def _apply_environment(values: dict[str, Any], environ: Mapping[str, str]) -> None:
    for setting in fields(CentreConfig):
        text = environ.get(ENVIRONMENT_PREFIX + setting.name.upper())
        if text and setting.name not in ("webhooks", "retention", "quotas"):
            values[setting.name] = text
    url = environ.get(ENVIRONMENT_PREFIX + "WEBHOOK_URL")
    if url:
        allow = environ.get(ENVIRONMENT_PREFIX + "WEBHOOK_ALLOW_PRIVATE", "")
        secret = environ.get(ENVIRONMENT_PREFIX + "WEBHOOK_SECRET", "")
        webhook = Webhook(url, secret, _typed("webhook_allow_private", allow or False, bool))
        values["webhooks"] = (*values.get("webhooks", ()), webhook)


def _build(values: dict[str, Any]) -> CentreConfig:
    for name, example in (
        ("database_url", "postgresql://flamefleet@localhost/flamefleet"),
        ("broker_url", "redis://localhost:6379/0"),
    ):
        if not values.get(name):
            raise ConfigError(
                f"{name} is not set, for example {example}",
                remedy=f"set it in a file (--config) or as {ENVIRONMENT_PREFIX}{name.upper()}; "
                "the centre of `flamefleet up` is found while that runs",
            )
    values["allowed_hosts"] = _words("allowed_hosts", values.get("allowed_hosts", ()))
    kinds = {f.name: f.type for f in fields(CentreConfig)}
    config = CentreConfig(**{k: _typed(k, v, kinds[k]) for k, v in values.items()})
    if config.public_url and not urlsplit(config.public_url).hostname:
        raise ConfigError(
            f"public_url is {config.public_url!r}; it must be the page's whole address, for "
            "example https://profiles.example/flamefleet/"
        )
    _check_range("port", config.port, 0, 65_535)
    _check_range("overhead_cpu_percent", config.overhead_cpu_percent, 0, 100)
    _check_range("overhead_memory_bytes", config.overhead_memory_bytes, 1, 1 << 40)
    _check_range("max_connections", config.max_connections, 16, 1 << 20)
    _check_range("symbols_upload_bytes", config.symbols_upload_bytes, 1 << 20, 64 << 30)
    _check_range("forget_silent_days", config.forget_silent_days, 0, 3_660)
    for setting in fields(Retention):
        seconds = getattr(config.retention, setting.name)
        _check_range(f"retention.{setting.name}", seconds, HOUR_S, 3_660 * DAY_S)
    if "://" not in config.broker_url:
        raise ConfigError("broker_url must be a URL such as redis://HOST:6379/0")
    for setting in fields(Quotas):
        _check_range(f"quotas.{setting.name}", getattr(config.quotas, setting.name), 0, 1e9)
    for webhook in config.webhooks:
        if not webhook.url.startswith(("http://", "https://")):
            raise ConfigError(f"webhooks.url must start with http:// or https://: {webhook.url!r}")
    return config


def _words(name: str, value: object) -> tuple[str, ...]:
    """A list of words; in an environment variable, one with commas."""
    if isinstance(value, str):
        value = [word.strip() for word in value.split(",") if word.strip()]
    if not isinstance(value, (list, tuple)) or not all(isinstance(word, str) for word in value):
        raise ConfigError(f"{name} is {value!r}; it must be a list of words")
    return tuple(value)


def _check_range(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise ConfigError(f"{name} is {value}; allowed are {least:g} to {most:g}")


def _typed(name: str, value: Any, kind: Any) -> Any:
    """`value` as `kind`: environment variables are text, TOML has types already."""
    if kind not in (str, int, float, bool):
        return value
    if kind is bool and isinstance(value, str):
        words = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
        value = words.get(value.lower(), value)
    elif kind in (int, float) and isinstance(value, str):
        try:
            value = kind(value)
        except ValueError:
            raise ConfigError(f"{name} is {value!r}; it must be a number") from None
    elif kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ConfigError(f"{name} is {value!r}; it must be of type {kind.__name__}")
    return value
