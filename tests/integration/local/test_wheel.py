"""The wheel holds everything that runs: installed elsewhere, it works without the checkout."""

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this checkout. The build backend comes from the environment of the tests."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The bin folder of an environment that holds the wheel.

    What the project depends on is taken from the tests' environment by a path file, without the
    line there that points to the checkout.
    """
    folder = tmp_path_factory.mktemp("environment") / "venv"
    venv.create(folder, with_pip=False, symlinks=True)
    packages = next((folder / "lib").glob("python*/site-packages"))
    command = [sys.executable, "-m", "pip", "--quiet", "--python", str(folder / "bin/python")]
    subprocess.run([*command, "install", "--no-deps", "--no-index", str(wheel)], check=True)
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    yield folder / "bin"
    shutil.rmtree(folder)


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)),
        cwd="/",
        env={k: v for k, v in os.environ.items() if "FLAMEFLEET" not in k and k != "PYTHONPATH"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_the_wheel_holds_programs_migrations_and_pages(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "node_agent/kernel/objects/cpu.bpf.o" in names
    assert "aggregator/_migrations/env.py" in names
    assert any(name.startswith("aggregator/_migrations/versions/") for name in names)
    assert any(
        name.startswith("aggregator/dashboard/") and name.endswith(".html") for name in names
    )
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if "." not in top} == {
        *("wire", "confinement", "node_agent", "aggregator")
    }


def test_nothing_comes_from_the_checkout(installed: Path) -> None:
    code = "import wire, node_agent, aggregator as a; print(wire.__file__, a.__file__)"
    done = run(installed / "python", "-I", "-c", code)
    assert done.returncode == 0, done.stderr
    for path in done.stdout.split():
        assert Path(path).is_relative_to(installed.parent)


def test_the_installed_agent_checks_this_host(installed: Path) -> None:
    done = run(installed / "flamefleet-agent", "check", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)


@pytest.fixture
def up_command(installed: Path) -> list[str]:
    return [str(installed / "flamefleet"), "up"]


def test_the_installed_centre_comes_up(start_up: Callable[..., Any], installed: Path) -> None:
    up = start_up().wait_ready()
    with Path(f"/proc/{up.ready['pids']['sampler']}/cmdline").open() as arguments:
        assert str(installed) in arguments.read()
    assert up.get("/api/v1/flamegraph", **{"from": "now-5m", "until": "now"})["total_ns"] > 0
    assert up.finish(signal.SIGINT) == 0
