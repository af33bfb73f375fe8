"""The centre's configuration: file, then environment, then flags."""

import pytest

from aggregator.config import CentreConfig, Retention, Webhook, load_config
from aggregator.errors import ConfigError

URLS = {"database_url": "postgresql://a/b", "broker_url": "redis://c/0"}
ENVIRON = {"FLAMEFLEET_DATABASE_URL": "postgresql://a/b", "FLAMEFLEET_BROKER_URL": "redis://c/0"}
FILE = """
database_url = "postgresql://file/b"
broker_url = "redis://file/0"
port = 9000
overhead_cpu_percent = 2

[retention]
profiles_60s_s = 86400

[[webhooks]]
url = "https://example.org/hook"
secret = "whsec_c2VjcmV0"
allow_private = true
"""


@pytest.fixture
def config_file(tmp_path):
    """Writes a configuration file and returns its path."""

    def write(content):
        path = tmp_path / "centre.toml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_defaults():
    config = load_config(overrides=URLS)

    assert config == CentreConfig("postgresql://a/b", "redis://c/0")
    assert (config.host, config.port) == ("127.0.0.1", 8380)
    assert config.retention == Retention(7200, 7 * 86400, 7 * 86400)
    assert (config.overhead_cpu_percent, config.overhead_memory_bytes) == (1.0, 50 * 1024 * 1024)


def test_file(config_file):
    config = load_config(config_file(FILE))

    assert (config.database_url, config.port) == ("postgresql://file/b", 9000)
    assert config.overhead_cpu_percent == 2.0
    assert config.retention == Retention(profiles_60s_s=86400)
    assert config.webhooks == (Webhook("https://example.org/hook", "whsec_c2VjcmV0", True),)


def test_environment_overrides_the_file_and_flags_override_both(config_file):
    environ = {"FLAMEFLEET_PORT": "9001", "FLAMEFLEET_HOST": "::1"}

    config = load_config(config_file(FILE), environ, {"port": 9002, "host": None})

    assert (config.host, config.port) == ("::1", 9002)
    assert config.database_url == "postgresql://file/b"


def test_environment_names_the_file_and_adds_a_webhook(config_file):
    environ = {
        "FLAMEFLEET_CONFIG": str(config_file(FILE)),
        "FLAMEFLEET_WEBHOOK_URL": "http://127.0.0.1:1/",
        "FLAMEFLEET_WEBHOOK_SECRET": "s",
        "FLAMEFLEET_WEBHOOK_ALLOW_PRIVATE": "true",
    }

    assert load_config(environ=environ).webhooks[1] == Webhook("http://127.0.0.1:1/", "s", True)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("port = 70000", "port is 70000; allowed are 0 to 65535"),
        ("port = '9000x'", "port is '9000x'; it must be a number"),
        ("port = true", "port is True; it must be of type int"),
        ("host = 7", "host is 7; it must be of type str"),
        ("prot = 1", "unknown setting 'prot'"),
        ("overhead_memory_bytes = 0", "overhead_memory_bytes is 0"),
        ("overhead_cpu_percent = 101", "overhead_cpu_percent is 101"),
        ("retention = 7", "retention may hold only"),
        ("[retention]\nprofiles_10s_s = 60", "retention.profiles_10s_s is 60"),
        ("[retention]\nprofiles_10s_s = 'long'", "retention.profiles_10s_s is 'long'"),
        ("[retention]\nforever = 1", "retention may hold only"),
        ("webhooks = 'x'", "webhooks must be a list"),
        ("[[webhooks]]\nsecret = 'x'", "webhooks lacks a setting"),
        ("[[webhooks]]\nurl = 'ftp://x'", "webhooks.url must start with"),
        ("[[webhooks]]\nurl = 'http://x'\nallow_private = 'maybe'", "allow_private is 'maybe'"),
        ("[[webhooks]]\nurl = 'http://x'\nsecert = 'x'", "webhooks may hold only"),
        ("broken", "is not valid TOML"),
        (b"host = '\xff'", "is not valid TOML"),
    ],
)
def test_bad_settings_are_named(config_file, content, words):
    with pytest.raises(ConfigError, match=words.replace("(", r"\(")):
        load_config(config_file(content), ENVIRON)


@pytest.mark.parametrize("missing", ["database_url", "broker_url"])
def test_missing_urls_are_named(missing):
    urls = {name: url for name, url in URLS.items() if name != missing}

    with pytest.raises(ConfigError, match=f"{missing} is not set") as caught:
        load_config(overrides=urls)
    assert f"FLAMEFLEET_{missing.upper()}" in caught.value.remedy


def test_missing_file(tmp_path):
    with pytest.raises(ConfigError, match="cannot read"):
        load_config(tmp_path / "none.toml")


def test_secrets_are_not_shown():
    config = CentreConfig(
        "postgresql://u:hidden@h/d", "redis://:hidden@h", webhooks=(Webhook("https://x", "hidden"),)
    )

    assert "hidden" not in repr(config)
