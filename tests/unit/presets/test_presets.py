import subprocess
import sys
from pathlib import Path

import pytest

import node_agent
from node_agent.errors import ConfigError
from node_agent.presets import EVERY_COLLECTOR, find_preset


@pytest.mark.parametrize(
    ("env", "name", "rate_hz", "budget_percent"),
    [
        ("production", "production", 19, 0.5),
        ("prod", "production", 19, 0.5),
        ("staging", "staging", 49, 1.0),
        ("development", "development", 99, 1.0),
        ("dev", "development", 99, 1.0),
        ("debug", "debug", 199, 2.0),
        (" Production ", "production", 19, 0.5),
    ],
)
def test_recommended_config(env, name, rate_hz, budget_percent):
    assert node_agent.recommended_sample_rate(env) == rate_hz
    config = node_agent.create_recommended_config(env)
    assert (config.preset, config.rate_hz) == (name, rate_hz)
    assert config.budget_percent == budget_percent
    assert config.max_samples == 100_000


def test_production_and_staging_profile_cpu_only():
    assert find_preset("production").collectors == ("cpu",)
    assert find_preset("staging").collectors == ("cpu",)


@pytest.mark.parametrize("env", ["development", "debug"])
def test_development_and_debug_have_every_collector_that_exists(env):
    folder = Path(node_agent.__file__).parent / "collectors"
    existing = {path.stem for path in folder.glob("*.py")} & {
        "cpu",
        "offcpu",
        "syscalls",
        "network",
        "memory",
    }
    assert set(find_preset(env).collectors) == set(EVERY_COLLECTOR) == existing


@pytest.mark.parametrize("env", ["", "live", "prodution", "19"])
def test_an_unknown_environment_is_refused(env):
    with pytest.raises(ConfigError, match="it must be one of production, staging"):
        node_agent.recommended_sample_rate(env)
    with pytest.raises(ConfigError):
        node_agent.create_recommended_config(env)


def test_a_near_miss_is_named():
    with pytest.raises(ConfigError, match="did you mean production"):
        find_preset("prodution")


def test_importing_the_package_loads_nothing_else():
    code = (
        "import sys, node_agent; "
        "assert not [m for m in sys.modules if m.startswith('node_agent.')]; "
        "from node_agent import recommended_sample_rate as rate; print(rate('dev')); "
        "assert 'node_agent.spool' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "99\n"
