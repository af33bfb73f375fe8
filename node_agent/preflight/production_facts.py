"""What the production checklist needs to know, read from this host and asked of the aggregator."""

import json
import os
import ssl
import struct
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from node_agent.config import AgentConfig
from node_agent.errors import ConfigError
from node_agent.preflight.facts import Failure
from node_agent.preflight.production import SAMPLER_UNIT, SHIPPER_UNIT, ProductionFacts
from node_agent.shipper.proxy import choose_proxy
from node_agent.spool import Spool

INTERPRETER = Path("/opt/flamefleet/bin/flamefleet-python")
_PROPERTIES = ("LoadState", "ActiveState", "Restart", "RestartPreventExitStatus")
_MAX_ANSWER_BYTES = 4 << 20


def read_production_facts(
    config: AgentConfig | None, config_fault: str, interpreter: Path = INTERPRETER
) -> ProductionFacts:
    """Look at this host's package and units, and ask the aggregator of `config`."""
    monitoring, webhooks, broker_is_closed = _ask(config)
    return ProductionFacts(
        config=config,
        config_fault=config_fault,
        interpreter=str(interpreter),
        file_capabilities=_file_capabilities(interpreter),
        units={unit: _unit(unit) for unit in (SAMPLER_UNIT, SHIPPER_UNIT)},
        breaker=_opened(config),
        monitoring=monitoring,
        webhooks=webhooks,
        broker_is_closed=broker_is_closed,
    )


def parse_file_capabilities(value: bytes) -> int:
    """The permitted mask in the attribute security.capability: what getcap(8) shows.

    The layout is that of struct vfs_cap_data in include/uapi/linux/capability.h: a word with the
    revision, then permitted and inheritable, 32 bits each, the lower ones first.
    """
    revision = int.from_bytes(value[:4], "little") >> 24
    if revision == 1:
        return int.from_bytes(value[4:8], "little")
    low, _, high, _ = struct.unpack_from("<4I", value, 4)
    return int(low | high << 32)


def parse_properties(text: str) -> dict[str, str]:
    """The lines `Name=value` of `systemctl show`."""
    return dict(line.split("=", 1) for line in text.split("\n") if "=" in line)


def parse_prevented(text: str) -> str:
    """Exit statuses of systemd's answer, which has signals too: `{4}`, or `4 SIGKILL`."""
    return text.replace("{", " ").replace("}", " ").replace(",", " ")


def _file_capabilities(path: Path) -> int | None:
    if not path.exists():
        return None
    try:
        return parse_file_capabilities(os.getxattr(path, "security.capability"))
    except (OSError, struct.error):
        return 0


def _unit(name: str) -> Mapping[str, str]:
    command = ["systemctl", "show", name, *(f"--property={one}" for one in _PROPERTIES)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    properties = parse_properties(done.stdout) if done.returncode == 0 else {}
    prevented = properties.get("RestartPreventExitStatus", "")
    return {**properties, "RestartPreventExitStatus": parse_prevented(prevented)}


def _opened(config: AgentConfig | None) -> str | None:
    if config is None or not (config.spool_dir / "status").is_dir():
        return None
    spool = Spool(config.spool_dir, config.spool_limit_bytes, config.spool_limit_age_s)
    spool.create()
    breaker = (spool.read_status("sampler") or {}).get("breaker")
    return str(breaker.get("words")) if isinstance(breaker, dict) else None


def _ask(config: AgentConfig | None) -> tuple[Failure | None, int | None, bool | None]:
    """Why the aggregator is not ready (None: it is), the number of its webhooks, and whether its
    broker is closed to others."""
    if config is None or config.ship.url is None:
        return Failure("no aggregator is configured", "set [ship] url"), None, None
    url = config.ship.url
    try:
        _get(f"{url}/readyz", config)
    except urllib.error.HTTPError as error:
        words = error.read(1000).decode("utf-8", "replace")
        why = f"{url}/readyz answered {error.code}: {' '.join(words.split())}"
        return Failure(why, "see /readyz of the aggregator"), None, None
    except (OSError, ValueError, ConfigError) as error:
        why = f"{url} cannot be reached: {getattr(error, 'reason', error)}"
        return Failure(why, "check [ship] url, ca_file, and the way to the aggregator"), None, None
    webhooks: int | None = None
    is_closed: bool | None = None
    with suppress(OSError, ValueError, TypeError, KeyError):
        told = json.loads(_get(f"{url}/api/v1/alerts", config))
        webhooks, is_closed = int(told["webhooks"]), bool(told["broker_is_closed"])
    return None, webhooks, is_closed


def _get(url: str, config: AgentConfig) -> bytes:
    """The same way as the shipper goes. Raises OSError, ValueError."""
    ca_file = str(config.ship.ca_file) if config.ship.ca_file else None
    proxy = choose_proxy(url, config.ship.proxy, os.environ)
    address = f"http://{proxy.host}:{proxy.port}" if proxy else ""
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({"http": address, "https": address} if proxy else {}),
        urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=ca_file)),
    )
    request = urllib.request.Request(url)
    if proxy and proxy.authorization:
        request.add_header("Proxy-Authorization", proxy.authorization)
    with opener.open(request, timeout=config.ship.timeout_s) as answer:
        body: bytes = answer.read(_MAX_ANSWER_BYTES)
    return body
