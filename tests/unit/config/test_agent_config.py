from pathlib import Path

import pytest

from node_agent.config import AgentConfig, load_config
from node_agent.errors import ConfigError


def write(folder: Path, text: str) -> Path:
    path = folder / "agent.toml"
    path.write_text(text)
    return path


def faults(path: Path | None = None, environ=None, **overrides) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        load_config(path, environ or {}, overrides)
    return str(raised.value).splitlines()


def test_defaults_are_production():
    config = load_config(None, {}, {})
    assert (config.preset, config.rate_hz, config.budget_percent) == ("production", 19, 0.5)
    assert (config.interval_s, config.max_samples) == (10.0, 100_000)
    assert (config.spool_limit_bytes, config.spool_limit_age_s) == (256 << 20, 86_400.0)
    assert config.collectors == ("cpu",)
    assert config.name
    assert config.ship.url is None


def test_every_setting_of_the_file(tmp_path):
    path = write(
        tmp_path,
        """
        [agent]
        name = "web-1"
        preset = "dev"
        rate_hz = 250
        interval_s = 2.5
        max_samples = 5000
        spool_dir = "/tmp/spool"
        spool_limit_bytes = 2097152
        spool_limit_age_s = 3600
        budget_percent = 0.8
        budget_user_percent = 1
        [agent.labels]
        team = "web"
        [ship]
        url = "https://centre.example:8443/flamefleet/"
        token_file = "/etc/flamefleet/token"
        ca_file = "/etc/flamefleet/ca.pem"
        proxy = "http://proxy.example:3128"
        timeout_s = 3
        """,
    )
    config = load_config(path, {}, {})
    assert config.name == "web-1"
    assert (config.preset, config.rate_hz) == ("development", 250)
    assert (config.interval_s, config.max_samples) == (2.5, 5000)
    assert config.spool_dir == Path("/tmp/spool")
    assert (config.spool_limit_bytes, config.spool_limit_age_s) == (2 << 20, 3600.0)
    assert (config.budget_percent, config.budget_user_percent) == (0.8, 1.0)
    assert config.labels == {"team": "web"}
    assert config.ship.url == "https://centre.example:8443/flamefleet"
    assert config.ship.token_file == Path("/etc/flamefleet/token")
    assert config.ship.ca_file == Path("/etc/flamefleet/ca.pem")
    assert config.ship.proxy == "http://proxy.example:3128"
    assert config.ship.timeout_s == 3.0


def test_flags_beat_environment_beats_file_beats_preset(tmp_path):
    path = write(tmp_path, "[agent]\npreset = 'staging'\ninterval_s = 5\nmax_samples = 7\n")
    environ = {"FLAMEFLEET_INTERVAL_S": "6", "FLAMEFLEET_MAX_SAMPLES": "8"}
    config = load_config(path, environ, {"max_samples": 9, "name": None})
    assert (config.rate_hz, config.interval_s, config.max_samples) == (49, 6.0, 9)


def test_labels_of_file_and_environment_are_joined(tmp_path):
    path = write(tmp_path, "[agent.labels]\nteam = 'web'\nzone = 'a'\n")
    config = load_config(path, {"FLAMEFLEET_LABELS": "zone=b,rack=7"}, {})
    assert config.labels == {"team": "web", "zone": "b", "rack": "7"}


@pytest.mark.parametrize("value", [1, 1000, "1000"])
def test_rates_at_the_limits(value):
    assert load_config(None, {}, {"rate_hz": value}).rate_hz == int(value)


@pytest.mark.parametrize("value", [1, 10_000_000])
def test_max_samples_at_the_limits(value):
    assert load_config(None, {}, {"max_samples": value}).max_samples == value


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("rate_hz", 0, "1 to 1000 Hz"),
        ("on_demand_max_rate_hz", -1, "0 (no profiles on demand) to 1000 Hz"),
        ("on_demand_max_rate_hz", 1001, "0 (no profiles on demand) to 1000 Hz"),
        ("on_demand_collectors", ["cpu", "offcpu"], "a list of cpu"),
        ("on_demand_collectors", 5, "a list of cpu"),
        ("rate_hz", 1001, "1 to 1000 Hz"),
        ("rate_hz", -5, "1 to 1000 Hz"),
        ("rate_hz", True, "1 to 1000 Hz"),
        ("rate_hz", 19.5, "1 to 1000 Hz"),
        ("rate_hz", "fast", "1 to 1000 Hz"),
        ("max_samples", 0, "1 to 10000000"),
        ("max_samples", 10_000_001, "1 to 10000000"),
        ("interval_s", 0, "above 0"),
        ("interval_s", -1, "above 0"),
        ("interval_s", float("nan"), "above 0"),
        ("interval_s", "inf", "above 0"),
        ("timeout_s", 0, "above 0"),
        ("spool_limit_bytes", 5, "1048576"),
        ("spool_limit_age_s", 172_801, "48 hours"),
        ("budget_percent", 0, "above 0 and at most 100 percent of the host"),
        ("budget_percent", 101, "above 0 and at most 100 percent of the host"),
        ("budget_user_percent", -1, "percent of one core"),
        ("name", "", "1 to 253 bytes"),
        ("name", "a\0b", "1 to 253 bytes"),
        ("name", "ä" * 127, "1 to 253 bytes"),
        ("url", "ftp://centre", "http"),
        ("url", "http://", "http"),
        ("url", "http://centre:99999", "http"),
        ("url", "http://me:secret@centre", "http"),
        ("url", "http://centre/\r\nX: y", "http"),
        ("spool_dir", "", "path"),
    ],
)
def test_a_fault_names_field_value_and_what_is_allowed(name, value, allowed):
    (fault,) = faults(**{name: value})
    assert fault.startswith(f"{name} is {value!r}")
    assert allowed in fault


def test_every_fault_is_named_at_once_with_its_source(tmp_path):
    path = write(tmp_path, "[agent]\nrate_hz = 5000\n")
    found = faults(path, {"FLAMEFLEET_MAX_SAMPLES": "none"}, interval_s=0)
    assert len(found) == 3
    assert found[0].endswith(f"(in {path})")
    assert found[1].endswith("(from the environment)")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[agent]\nrate = 5", "[agent] rate is not a setting; did you mean rate_hz?"),
        ("[ship]\nurls = 'x'", "[ship] urls is not a setting; did you mean url?"),
        ("[ship]\nrate_hz = 5", "[ship] rate_hz is not a setting"),
        ("[agnt]\n", "[agnt] is not a section; did you mean agent?"),
        ("ship = 1", "ship is 1; it must be a section [ship]"),
        ("[agent]\nlabels = 3", "labels is 3; it must be a table"),
        ("[agent.labels]\n'a-b' = 'x'", "label name is 'a-b'"),
        ("[agent.labels]\nhost = 'x'", "label name is 'host'"),
        ("[agent.labels]\nservice = 'x'", "label name is 'service'"),
        ("[agent.labels]\nbuild_id = 'x'", "label name is 'build_id'"),
        ("[agent.labels]\nteam = 3", "label team is 3; it must be text"),
    ],
)
def test_unknown_keys_name_the_nearest_known_one(tmp_path, text, fault):
    (found,) = faults(write(tmp_path, text))
    assert found.startswith(fault)


def test_misspelt_environment_is_a_fault_but_other_programs_names_are_not():
    environ = {"FLAMEFLEET_DATABASE_URL": "x", "FLAMEFLEET_BROKER_URL": "x", "FLAMEFLEET_PORT": "1"}
    assert isinstance(load_config(None, environ, {}), AgentConfig)
    (fault,) = faults(None, {"FLAMEFLEET_RATE": "5"})
    assert fault.startswith("FLAMEFLEET_RATE is not a setting; did you mean FLAMEFLEET_RATE_HZ?")


def test_unreadable_and_broken_files(tmp_path):
    (fault,) = faults(tmp_path / "none.toml")
    assert "cannot read the configuration" in fault
    (fault,) = faults(write(tmp_path, "[agent\n"))
    assert "is not TOML" in fault
    path = tmp_path / "latin.toml"
    path.write_bytes(b"[agent]\nname = '\xff'\n")
    (fault,) = faults(path)
    assert "is not TOML" in fault
