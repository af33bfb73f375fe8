"""The second mode: bcc compiles the same source against the headers of the running kernel.

For kernels without type information (BTF). bcc runs in a short-lived child on the distribution's
own interpreter, which alone has its Python package; the child has no capabilities, and hands back
instructions. This process makes the maps and loads the instructions itself: bcc's 150 MB and its
compiler never have a say in what the agent may do.
"""

import ctypes
import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from node_agent.kernel.errors import BccError
from node_agent.kernel.headers import find_headers
from node_agent.kernel.libbpf import LoadedObject
from node_agent.kernel.program import Program, create_maps, load_instructions

SOURCES = Path(__file__).parent / "source"
INTERPRETER = Path("/usr/bin/python3")
PACKAGES = Path("/usr/lib/python3/dist-packages")
TIMEOUT_S = 300.0  # takes 1 to 3 s; under emulation a minute
_WHAT = "bcc cannot compile the program"
_MAX_WORDS = 2000
_CHILD = """
import sys
sys.path += [{path!r}, {packages!r}]
from node_agent.kernel.bcc_child import main
main()
"""


def find_missing(environ: Mapping[str, str] = os.environ) -> None:
    """Raises BccError or HeadersError when bcc can't be used on this host; compiles nothing."""
    if not INTERPRETER.exists() or not (PACKAGES / "bcc/__init__.py").exists():
        raise BccError(_WHAT, "it is not installed", "apt install python3-bpfcc")
    if not SOURCES.is_dir():
        raise BccError(_WHAT, f"the source is missing: no folder {SOURCES}", "Run `make bpf`.")
    find_headers(os.uname().release, environ)


def load(program: Program, environ: Mapping[str, str] = os.environ) -> LoadedObject:
    """Compile and load; the descriptors are the caller's. Raises KernelError."""
    find_missing(environ)
    maps = create_maps(program)
    loaded = LoadedObject({}, maps)
    try:
        text = main_source(program, maps)
        for name, instructions in _compile(text, program.programs, environ).items():
            loaded.programs[name] = load_instructions(name, instructions)
    except BaseException:
        loaded.close()
        raise
    return loaded


def main_source(program: Program, maps: Mapping[str, int]) -> str:
    """bcc's main file: it makes programs of the functions in it alone, and rewrites only them."""
    lines = ["#define FLAMEFLEET_BCC"]
    lines += [f"#define MAP_FD_{name} {fd}" for name, fd in maps.items()]
    lines += ['#include "kernel.h"', '#include "events.h"']
    lines += [f"static const struct settings settings = {initializer(program.settings)};"]
    lines += [f'#include "{program.path.name.removesuffix(".o")}.c"']
    lines += [
        f"int {entry_of(name)}(struct sample_context *ctx) {{ return {name}(ctx); }}"
        for name in program.programs
    ]
    return "\n".join([*lines, ""])


def entry_of(name: str) -> str:
    """The name of the function that bcc makes a program of."""
    return f"enter_{name}"


def initializer(value: object) -> str:
    """A ctypes structure, array or number as C."""
    if isinstance(value, ctypes.Structure):
        parts: Iterable[object] = (getattr(value, field[0]) for field in value._fields_)
        return "{" + ", ".join(map(initializer, parts)) + "}"
    if isinstance(value, ctypes.Array):
        return "{" + ", ".join(map(initializer, value)) + "}"
    if isinstance(value, bytes):
        return "{" + ", ".join(map(str, value)) + "}"
    if isinstance(value, int):
        return f"{int(value)}ULL"
    raise TypeError(f"no C initializer for {value!r}")


def _compile(text: str, programs: Iterable[str], environ: Mapping[str, str]) -> dict[str, bytes]:
    """The instructions of each program, in the kernel's format."""
    headers = find_headers(os.uname().release, environ)
    request = {
        "text": text,
        "flags": [f"-I{SOURCES}", *headers.include_flags()],
        "entries": {name: entry_of(name) for name in programs},
    }
    root = str(Path(__file__).parents[2])
    command = [str(INTERPRETER), "-I", "-S", "-c", _CHILD.format(path=root, packages=str(PACKAGES))]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(request).encode(),
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
            env={"BCC_KERNEL_SOURCE": str(headers.source), "PATH": "/usr/bin:/bin"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BccError(_WHAT, str(error), "See `flamefleet-agent check`.") from error
    if done.returncode != 0:
        words = done.stderr.decode("utf-8", "replace").strip()[-_MAX_WORDS:]
        raise BccError(
            _WHAT,
            f"its process ended with {done.returncode}: {words}",
            "Install the headers of this kernel; unit limits on memory must leave 200 MB.",
        )
    answer: dict[str, str] = json.loads(done.stdout)
    return {name: bytes.fromhex(digits) for name, digits in answer.items()}
