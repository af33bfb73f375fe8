"""Durations, and the files that `flamefleet up` writes for its parts, as those parts read them."""

from pathlib import Path

import pytest

from aggregator.config import load_config as load_centre_config
from aggregator.local.data_folder import DataFolder
from aggregator.local.errors import UsageError
from aggregator.local.options import (
    PRESETS,
    UpOptions,
    agent_toml,
    centre_toml,
    parse_duration_s,
)
from node_agent.config import load_config as load_agent_config
from node_agent.presets import ALIASES
from node_agent.presets import PRESETS as AGENT_PRESETS
from node_agent.shipper.proxy import choose_proxy


@pytest.mark.parametrize(
    ("text", "seconds"), [("60s", 60), ("90", 90), ("1.5m", 90), ("2h", 7200), (" 5s ", 5)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "0s", "-5s", "5d", "1m30s", "nan"])
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match="60s, 5m or 1h") as caught:
        parse_duration_s(text)
    assert caught.value.exit_code == 2, "as for every other flag"


def test_presets_are_those_of_the_agent() -> None:
    assert set(PRESETS) == {*AGENT_PRESETS, *ALIASES}


def test_the_centre_reads_its_file(tmp_path: Path) -> None:
    file = tmp_path / "centre.toml"
    options = UpOptions(tmp_path, 8399, webhook='http://127.0.0.1:9/a?b="c\\', webhook_secret="é\n")
    database_url = "postgresql+psycopg://flamefleet@/flamefleet?host=%2Ftmp%2Fx"
    file.write_text(centre_toml(options, database_url, "redis+socket:///x?virtual_host=0"))
    config = load_centre_config(file)
    assert (config.database_url, config.broker_url) == (
        database_url,
        "redis+socket:///x?virtual_host=0",
    )
    assert (config.host, config.port) == ("127.0.0.1", 8399)
    (webhook,) = config.webhooks
    assert (webhook.url, webhook.secret) == (options.webhook, options.webhook_secret)
    assert webhook.allow_private


def test_without_a_webhook_there_is_none(tmp_path: Path) -> None:
    file = tmp_path / "centre.toml"
    file.write_text(centre_toml(UpOptions(tmp_path), "postgresql://x/y", "redis://x"))
    assert load_centre_config(file).webhooks == ()


def test_the_agent_reads_its_file(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    folder = DataFolder(tmp_path / 'a "quoted" folder')
    file.write_text(agent_toml(UpOptions(folder.root, 8399, "dev"), folder, "host-1"))
    config = load_agent_config(file, {}, {})
    assert (config.name, config.preset, config.rate_hz) == ("host-1", "development", 99)
    assert config.spool_dir == folder.spool
    assert config.ship.url == "http://127.0.0.1:8399"
    assert config.ship.token_file == folder.agent_token("host-1")
    proxied = {"http_proxy": "http://proxy.example:3128"}
    assert choose_proxy(str(config.ship.url), config.ship.proxy, proxied) is None


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"webhook": "ftp://x"}, "--webhook: 'ftp://x' must start with http"),
        ({"webhook": "example.org"}, "http://"),
        ({"webhook_secret": "x"}, "give that too"),
    ],
)
def test_a_webhook_that_cannot_be_used_is_refused_before_anything_starts(
    flags: dict[str, str], words: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=words):
        UpOptions(tmp_path, **flags)  # type: ignore[arg-type]  # texts, all of them
