"""Build the node agent's Debian package: everything a host needs, no package index on the host.

Usage: python packaging/deb/build.py [--output build/deb]

The package holds the agent's own code with its BPF objects, `msgspec` and `zstandard` for each
supported interpreter, and libbpf with libelf. Its maintainer scripts (beside this file) make the
two users, copy the host's own interpreter and give the copy its file capabilities.
"""

import argparse
import ctypes.util
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
PREFIX = Path("opt/flamefleet")
INTERPRETERS = ("3.10", "3.11", "3.12", "3.13")  # Ubuntu 22.04, Debian 12, Ubuntu 24.04, Debian 13
PACKAGES = ("wire", "confinement", "node_agent")
COMPILED = ("msgspec", "zstandard")
LIBRARIES = ("libbpf.so.1", "libelf.so.1")  # libelf's own needs (zlib, libc) are on every host
PLATFORMS = ("manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux_2_28_x86_64")


def project_version() -> str:
    """Version of the project as written in pyproject.toml."""
    text = (ROOT / "pyproject.toml").read_text()
    found = re.search(r'^version = "([^"]+)"$', text, re.MULTILINE)
    if not found:
        raise SystemExit("pyproject.toml has no version line")
    return found[1]


def copy_code(tree: Path) -> None:
    """Copy the agent's packages; the BPF objects must have been built."""
    if not list((ROOT / "node_agent/kernel/objects").glob("*.bpf.o")):
        raise SystemExit("no BPF objects in node_agent/kernel/objects: run `make bpf` first")
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package,
            tree / PREFIX / "lib/python" / package,
            ignore=shutil.ignore_patterns("__pycache__", "*.pyc"),
        )
    shutil.copy(HERE / "agent.py", tree / PREFIX / "lib/agent.py")


def fetch_wheels(version: str, folder: Path) -> list[Path]:
    """Download the compiled dependencies for one interpreter version into `folder`."""
    wanted = [*COMPILED, *(["tomli"] if version == "3.10" else [])]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--python-version", version, "--dest", str(folder)]
    for platform in PLATFORMS:
        command += ["--platform", platform]
    subprocess.run([*command, *wanted], check=True)
    return sorted(folder.glob("*.whl"))


def copy_dependencies(tree: Path, cache: Path) -> None:
    """Unpack each interpreter's dependencies into lib/cpXY, without unused backends."""
    for version in INTERPRETERS:
        folder = cache / version
        folder.mkdir(parents=True, exist_ok=True)
        wheels = sorted(folder.glob("*.whl")) or fetch_wheels(version, folder)
        target = tree / PREFIX / "lib" / f"cp{version.replace('.', '')}"
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(target)
        for extra in target.glob("zstandard/_cffi*"):
            extra.unlink()  # the C backend is the one in use
        for library in target.rglob("*.so"):
            subprocess.run(["strip", "--strip-unneeded", str(library)], check=True)
            library.chmod(0o644)


def find_library(soname: str) -> Path:
    """Path of a shared library of the build machine, by its soname."""
    listing = subprocess.run(["/sbin/ldconfig", "-p"], check=True, capture_output=True, text=True)
    for line in listing.stdout.splitlines():
        name, _, path = line.strip().partition(" => ")
        if name.split(" ")[0] == soname and "x86-64" in name:
            return Path(path).resolve()
    found = ctypes.util.find_library(soname)
    raise SystemExit(f"{soname} is not installed here ({found}): run `make setup`")


def copy_libraries(tree: Path) -> None:
    """Put libbpf and libelf beside the agent; the agent loads them by absolute path."""
    target = tree / PREFIX / "lib"
    for soname in LIBRARIES:
        shutil.copy(find_library(soname), target / soname)


def write_control(tree: Path, version: str) -> None:
    """Control file and maintainer scripts."""
    folder = tree / "DEBIAN"
    folder.mkdir()
    size_kib = sum(f.stat().st_size for f in tree.rglob("*") if f.is_file()) // 1024
    control = (HERE / "control").read_text()
    control = control.replace("@VERSION@", version).replace("@SIZE@", str(size_kib))
    (folder / "control").write_text(control)
    for script in ("postinst", "prerm", "postrm"):
        shutil.copy(HERE / script, folder / script)
        (folder / script).chmod(0o755)


def build(output: Path) -> Path:
    """Build the package and return its absolute path."""
    version = project_version()
    output = output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        tree = Path(work) / "tree"
        (tree / PREFIX / "lib").mkdir(parents=True)
        tree.chmod(0o755)
        copy_code(tree)
        copy_dependencies(tree, output / "wheels")
        copy_libraries(tree)
        units = tree / "lib/systemd/system"
        units.mkdir(parents=True)
        for unit in HERE.glob("*.service"):
            shutil.copy(unit, units / unit.name)
        write_control(tree, version)
        subprocess.run(["chmod", "-R", "u=rwX,go=rX", str(tree)], check=True)
        package = output / f"flamefleet-agent_{version}_amd64.deb"
        command = ["dpkg-deb", "--root-owner-group", "-Zxz", "-z6", "--build", str(tree)]
        subprocess.run([*command, str(package)], check=True, stdout=subprocess.DEVNULL)
    return package


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "build/deb")
    print(build(parser.parse_args().output))
