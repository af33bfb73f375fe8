"""What a host's site-packages would have run at the start of an interpreter gets no capability."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
UNIT = ROOT / "packaging" / "deb" / "flamefleet-sampler.service"


@pytest.fixture
def capable(open_folder: Path, open_packages: str) -> Path:
    """The package's folder: a copy of the interpreter that has a site-packages with a trap, and
    the agent beside it."""
    (open_folder / "bin").mkdir()
    interpreter = open_folder / "bin" / "python"
    shutil.copy(Path(sys.executable).resolve(), interpreter)
    if shutil.which("setcap"):
        subprocess.run(["setcap", "cap_syslog=p", interpreter], check=False)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = open_folder / "lib" / version / "site-packages"
    site.mkdir(parents=True)
    (open_folder / "pyvenv.cfg").write_text(f"home = {Path(sys.base_prefix) / 'bin'}\n")
    trap = f"import pathlib; pathlib.Path({str(open_folder / 'sprung')!r}).touch()"
    (site / "trap.pth").write_text(f"{trap}\n")
    (site / "sitecustomize.py").write_text(f"{trap}\n")
    shutil.copy(ROOT / "packaging" / "deb" / "agent.py", open_folder / "agent.py")
    (open_folder / "python").symlink_to(open_packages)
    (open_folder / f"cp{sys.version_info.major}{sys.version_info.minor}").mkdir()
    return open_folder


def test_the_trap_works(capable: Path) -> None:
    subprocess.run([capable / "bin/python", "-I", "-c", ""], check=True)
    assert (capable / "sprung").exists()


def test_the_sampler_of_the_package_does_not_run_it(capable: Path) -> None:
    [command] = re.findall(r"^ExecStart=(.+)$", UNIT.read_text(), re.M)
    words = command.replace("/opt/flamefleet/bin/flamefleet-python", str(capable / "bin/python"))
    words = words.replace("/opt/flamefleet/lib/agent.py", str(capable / "agent.py"))
    arguments = words.partition(" run ")[0].split()
    done = subprocess.run([*arguments, "--help"], capture_output=True, text=True, check=False)
    assert "sampler" in done.stdout, done.stderr
    assert not (capable / "sprung").exists()


def test_another_start_is_refused(capable: Path) -> None:
    done = subprocess.run(
        [capable / "bin/python", "-I", capable / "agent.py", "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "-I -S" in done.stderr


@pytest.mark.parametrize("where", ["packaging", "ansible", "docs", "tests/deploy"])
def test_every_start_of_the_package_is_without_site_packages(where: str) -> None:
    for path in (ROOT / where).rglob("*"):
        if path.suffix not in (".service", ".yml", ".md", ".py", ".j2", ".sh"):
            continue
        for line in path.read_text().split("\n"):
            if re.search(r"python3?,? -I", line) and "agent.py" in line:
                assert re.search(r"-I,? -S", line), (path, line)
