"""What `flamefleet up` can be told, and the configuration files that it writes for its parts."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from aggregator.config import DEFAULT_PORT
from aggregator.local.data_folder import DataFolder
from aggregator.local.errors import UsageError

HOST = "127.0.0.1"  # and nothing else, whatever `flamefleet serve` may be told
DEFAULT_PRESET = "development"
# The agent's presets and their short names; a test holds the two lists equal.
PRESETS = ("production", "staging", "development", "debug", "prod", "dev")
_UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class UpOptions:
    """The flags of `flamefleet up`."""

    data_dir: Path
    port: int = DEFAULT_PORT
    preset: str = DEFAULT_PRESET
    run_s: float | None = None  # counted from the moment it is ready; None: until a signal
    json_lines: bool = False
    webhook: str | None = None
    webhook_secret: str | None = None

    def __post_init__(self) -> None:
        """Raises UsageError: before anything is started, not when the aggregator reads it."""
        if self.webhook is not None and not self.webhook.startswith(("http://", "https://")):
            raise UsageError(f"--webhook: {self.webhook!r} must start with http:// or https://")
        if self.webhook_secret is not None and self.webhook is None:
            raise UsageError("--webhook-secret signs what goes to --webhook: give that too")

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/"


def parse_duration_s(text: str) -> float:
    """Seconds in "90", "90s", "5m" or "1h". Raises UsageError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if match is None or float(match[1]) == 0:
        raise UsageError(f"--for: {text!r} is no duration; write for example 60s, 5m or 1h")
    return float(match[1]) * _UNITS_S[match[2]]


def centre_toml(options: UpOptions, database_url: str, broker_url: str) -> str:
    """The configuration file of aggregator and worker."""
    lines = [
        f"database_url = {_quote(database_url)}",
        f"broker_url = {_quote(broker_url)}",
        f"host = {_quote(HOST)}",
        f"port = {options.port}",
    ]
    if options.webhook is not None:
        lines += ["", "[[webhooks]]", f"url = {_quote(options.webhook)}"]
        if options.webhook_secret is not None:
            lines.append(f"secret = {_quote(options.webhook_secret)}")
        # Whoever starts a demo on this machine may well receive its alerts on it.
        lines.append("allow_private = true")
    return "\n".join(lines) + "\n"


def agent_toml(options: UpOptions, folder: DataFolder, node: str) -> str:
    """The configuration file of sampler and shipper."""
    lines = [
        "[agent]",
        f"name = {_quote(node)}",
        f"preset = {_quote(options.preset)}",
        f"spool_dir = {_quote(str(folder.spool))}",
        "",
        "[ship]",
        f"url = {_quote(options.url.rstrip('/'))}",
        f"token_file = {_quote(str(folder.agent_token(node)))}",
        'proxy = "direct"',  # whatever the environment names is not asked for a loopback address
    ]
    return "\n".join(lines) + "\n"


def _quote(text: str) -> str:
    """A TOML basic string; JSON's escapes are a subset of TOML's."""
    return json.dumps(text)
