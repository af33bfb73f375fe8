from pathlib import Path

import pytest

from node_agent.kernel.errors import HeadersError
from node_agent.kernel.headers import Headers, find_headers

RELEASE = "6.1.0-50-amd64"


def make(folder: Path, release: str | None = RELEASE, *, source: bool = True) -> Path:
    """A tree of headers; without `source` only what is generated."""
    (folder / "include/generated").mkdir(parents=True)
    if release is not None:
        text = f'#define UTS_RELEASE "{release}"\n'
        (folder / "include/generated/utsrelease.h").write_text(text)
    if source:
        (folder / "include/linux").mkdir()
        (folder / "include/linux/kconfig.h").touch()
    return folder


def test_one_tree_with_everything(tmp_path):
    tree = make(tmp_path / "usr/src" / f"linux-headers-{RELEASE}")
    found = find_headers(RELEASE, {}, tmp_path)
    assert found == Headers(tree, tree)
    assert found.include_flags() == []


def test_debians_two_trees(tmp_path):
    common = make(tmp_path / "usr/src/common", None)
    tree = make(tmp_path / "usr/src" / f"linux-headers-{RELEASE}", source=False)
    (tree / "Makefile").write_text(f"include {common}/Makefile\n")
    found = find_headers(RELEASE, {}, tmp_path)
    assert found == Headers(common, tree)
    assert f"-I{tree}/include" in found.include_flags()
    assert f"-I{tree}/arch/x86/include/generated" in found.include_flags()


def test_the_kernels_build_folder(tmp_path):
    tree = make(tmp_path / "elsewhere")
    (tmp_path / "lib/modules" / RELEASE).mkdir(parents=True)
    (tmp_path / "lib/modules" / RELEASE / "build").symlink_to(tree)
    assert find_headers(RELEASE, {}, tmp_path).source.resolve() == tree


def test_a_named_folder_beats_the_installed_ones(tmp_path):
    make(tmp_path / "usr/src" / f"linux-headers-{RELEASE}")
    mine = make(tmp_path / "mine")
    found = find_headers(RELEASE, {"BCC_KERNEL_SOURCE": str(mine)}, tmp_path)
    assert found.source == mine


@pytest.mark.parametrize(
    ("release", "makefile", "words"),
    [
        (None, None, "no kernel headers of"),
        ("6.1.0-49-amd64", None, "is of 6.1.0-49-amd64"),
        (RELEASE, None, "has no include/linux"),
        (RELEASE, "include /nowhere/Makefile\n", "has no include/linux"),
        (RELEASE, "all:\n", "has no include/linux"),
    ],
)
def test_what_is_no_use_is_said(tmp_path, release, makefile, words):
    tree = make(tmp_path / "usr/src" / f"linux-headers-{RELEASE}", release, source=False)
    if makefile is not None:
        (tree / "Makefile").write_text(makefile)
    with pytest.raises(HeadersError) as caught:
        find_headers(RELEASE, {}, tmp_path)
    assert words in str(caught.value)
    assert f"apt install linux-headers-{RELEASE}" in caught.value.remedy
