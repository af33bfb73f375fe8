"""No file of the project has paths of the machine that it was written or built on."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD_PATH = re.compile(
    rb"(?<![A-Za-z0-9_.~$}\\-])/(?:root|home|work|workspace|builds?|mnt|tmp|var/tmp)/[A-Za-z0-9_.-]+"
)
# Source and docs speak of paths on purpose; nothing that was built does.
INVENTED = {
    rb"(?:/var)?/tmp/.+": "where programs write, JITs their perf maps among them",
    rb"/(?:home|mnt)/(?:me|deploy|[a-z])": "invented, as in a test of such folders",
}
TEXTS = (".py", ".md", ".sh", ".c", ".h", ".js", ".yml", ".yaml", ".toml", ".j2", ".cfg")


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    ).stdout
    return [ROOT / name.decode() for name in listed.split(b"\0") if name]


def build_paths(content: bytes, is_text: bool) -> list[bytes]:
    found = BUILD_PATH.findall(content)
    if is_text:
        found = [path for path in found if not any(re.fullmatch(one, path) for one in INVENTED)]
    return found


def test_no_tracked_file_has_paths_of_a_build_machine() -> None:
    itself = Path(__file__).resolve()  # it has such paths as cases
    files = [path for path in tracked() if path.is_file() and path.resolve() != itself]
    assert len(files) > 500
    found = {
        str(path.relative_to(ROOT)): paths
        for path in files
        if (paths := build_paths(path.read_bytes(), path.suffix in TEXTS))
    }
    assert found == {}


@pytest.mark.parametrize(
    ("content", "is_text", "found"),
    [
        (b"\0/builds/project/tests\0", False, [b"/builds/project"]),
        (b"\0/tmp/corpus\0", False, [b"/tmp/corpus"]),
        (b"see /tmp/perf-1.map", True, []),
        (b"cd /root/flamefleet", True, [b"/root/flamefleet"]),
        (b"src/tmp/corpus and ~/builds/x and $HOME/home/x", False, []),
    ],
)
def test_such_a_path_is_found(content: bytes, is_text: bool, found: list[bytes]) -> None:
    assert build_paths(content, is_text) == found


def test_the_corpus_is_built_without_its_folder(tmp_path: Path) -> None:
    """Built anew in a folder of another name, it is without that one, too."""
    source = ROOT / "tests/data/fuzz/eh_frame"
    folder = tmp_path / "a-build-folder"
    folder.mkdir()
    for name in ("make_corpus.sh", "frames.s"):
        (folder / name).write_bytes((source / name).read_bytes())
    subprocess.run(["sh", folder / "make_corpus.sh"], check=True)
    made = list(folder.glob("*.elf"))
    assert len(made) >= 6
    for file in made:
        assert b"a-build-folder" not in file.read_bytes(), file.name
