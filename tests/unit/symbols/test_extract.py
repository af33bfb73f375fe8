"""The child that makes extracts, run as the sampler runs it."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from node_agent.children.command import child_command, plain_interpreter
from node_agent.symbols.build_ids import read_build_id
from node_agent.symbols.extract import refusal
from node_agent.symbols.kallsyms import KALLSYMS, kernel_build_id
from wire.codec import decode
from wire.schema import ModuleKind, SymbolExtract

REPORT = """
import json, os, resource
from node_agent.children.confine import confine
status, stat = (os.open(f"/proc/self/{name}", os.O_RDONLY) for name in ("status", "stat"))
confine(7, 1 << 30, 1 << 20, 19)
print(json.dumps({
    "status": os.read(status, 1 << 16).decode(),
    "nice": int(os.read(stat, 1 << 12).rpartition(b")")[2].split()[16]),
    "cpu": resource.getrlimit(resource.RLIMIT_CPU),
    "size": resource.getrlimit(resource.RLIMIT_FSIZE),
}))
"""


def _request(kind: ModuleKind, build_id: bytes, name: str) -> dict[str, object]:
    return {"node": "web-1", "module_kind": int(kind), "build_id": build_id.hex(), "name": name}


def _extract_all(requests: list[dict[str, object]], sources: list[Path]) -> list[SymbolExtract]:
    """As the sampler does it: one child, descriptors inherited."""
    inputs = [os.open(source, os.O_RDONLY) for source in sources]
    outputs = [os.memfd_create("extract") for _ in sources]
    for request, source, target in zip(requests, inputs, outputs, strict=True):
        request.update(input=source, output=target)
    command = child_command("node_agent.symbols.extract", [json.dumps(requests)])
    done = subprocess.run(
        command, capture_output=True, env={}, check=True, pass_fds=[*inputs, *outputs]
    )
    assert (done.stdout, done.stderr) == (b"", b"")
    extracts = [decode(os.pread(target, 1 << 30, 0), SymbolExtract) for target in outputs]
    for descriptor in [*inputs, *outputs]:
        os.close(descriptor)
    return extracts


def _extract(request: dict[str, object], source: Path) -> SymbolExtract:
    [extract] = _extract_all([request], [source])
    return extract


def _id(path: Path) -> bytes:
    data = path.read_bytes()
    return read_build_id(lambda at, size: data[at : at + size], len(data))


def test_a_program_becomes_a_reduced_elf_file(c_program: Path) -> None:
    extract = _extract(_request(ModuleKind.NATIVE, _id(c_program), "c_program"), c_program)
    assert extract.refused == ""
    assert (extract.node, extract.name) == ("web-1", "c_program")
    assert extract.build_id == _id(c_program)
    assert extract.data.startswith(b"\x7fELF")
    assert b"helper" in extract.data


def test_the_kernel_becomes_a_table() -> None:
    extract = _extract(_request(ModuleKind.KERNEL, kernel_build_id(), "vmlinux"), Path(KALLSYMS))
    rows = [line.split(" ", 1) for line in extract.data.decode().splitlines()]
    offsets = [int(offset, 16) for offset, _ in rows]
    assert offsets == sorted(set(offsets))
    assert {"schedule", "vfs_read"} <= {name for _, name in rows}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"#!/bin/sh\n", "not an ELF file"),
        (b"", "not an ELF file"),
        (b"\x7fELF", "not an ELF file"),
    ],
)
def test_other_files_are_refused_in_words(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "script"
    path.write_bytes(content)
    extract = _extract(_request(ModuleKind.NATIVE, _id(path), "script"), path)
    assert (extract.data, extract.refused) == (b"", reason)


def test_one_child_makes_several_and_a_refusal_spoils_nothing(
    c_program: Path, cpp_program: Path, tmp_path: Path
) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh")
    paths = [c_program, script, cpp_program]
    requests = [_request(ModuleKind.NATIVE, _id(path), path.name) for path in paths]
    extracts = _extract_all(requests, paths)
    assert [extract.name for extract in extracts] == ["c_program", "script", "cpp_program"]
    assert [bool(extract.refused) for extract in extracts] == [False, True, False]
    assert b"helper" in extracts[0].data
    assert b"shapes" in extracts[2].data


def test_another_build_than_asked_for_is_refused(c_program: Path, cpp_program: Path) -> None:
    extract = _extract(_request(ModuleKind.NATIVE, _id(cpp_program), "cpp_program"), c_program)
    assert extract.data == b""
    assert "replaced by another build" in extract.refused


def test_an_unloaded_kernel_module_is_refused() -> None:
    request = _request(ModuleKind.KERNEL_MODULE, b"x" * 20, "nosuch") | {"base": 0, "size": 0}
    assert "no function" in _extract(request, Path(KALLSYMS)).refused


def test_a_refusal_decodes() -> None:
    extract = decode(refusal(_request(ModuleKind.NATIVE, b"x" * 20, "a"), "gone"), SymbolExtract)
    assert (extract.refused, extract.build_id) == ("gone", b"x" * 20)


def test_the_child_gives_up_what_it_does_not_need() -> None:
    project = Path(__file__).parents[3]
    done = subprocess.run(
        [plain_interpreter(), "-c", REPORT], capture_output=True, text=True, check=True, cwd=project
    )
    report = json.loads(done.stdout)
    capabilities = dict(re.findall(r"^(Cap\w+):\s+(\w+)$", report["status"], re.M))
    for kind in ("CapPrm", "CapEff", "CapInh", "CapAmb"):
        assert int(capabilities[kind], 16) == 0, kind
    assert "NoNewPrivs:\t1" in report["status"]
    assert report["nice"] == 19
    assert report["cpu"] == [7, 7]
    assert report["size"] == [1 << 20, 1 << 20]


def test_the_plain_interpreter_has_no_file_capabilities() -> None:
    with pytest.raises(OSError, match=r"No data available|not supported"):
        os.getxattr(plain_interpreter(), "security.capability")
