"""What the sampler hands over for delivery holds names, never content."""

import os
import subprocess
from pathlib import Path

import pytest

from node_agent.spool.directives import symbols
from wire.codec import decode
from wire.schema import Batch, Definitions, ModuleKind, SymbolExtract

SECRET = "hunter2-never-leaves"
SOURCE = r"""
#include <stdlib.h>
#include <string.h>
const char constant[] = "constant-SECRET";
char variable[64] = "variable-SECRET";
int main(int argc, char **argv)
{
    char *heap = malloc(64);
    char stack[64];
    strcpy(heap, "heap-");
    strcat(heap, argv[1]);
    strcpy(stack, argv[1]);
    for (volatile unsigned long n = 0;; n++)
        variable[9] = stack[n % 9] ^ heap[n % 9] ^ constant[n % 9];
}
"""


@pytest.fixture
def keeper(open_folder: Path):
    """A busy program with a secret in its arguments, environment, constants and memory."""
    path = open_folder / "keeper"
    source = SOURCE.replace("SECRET", SECRET).encode()
    flags = [
        "-O0",
        "-g",
        "-fno-omit-frame-pointer",
        f"-Wl,--build-id=0x{os.urandom(20).hex()}",
        "-x",
        "c",
        "-",
    ]
    subprocess.run(["gcc", *flags, "-o", path], input=source, check=True)
    process = subprocess.Popen([path, SECRET], env={"PASSWORD": SECRET})
    yield process
    process.kill()
    process.wait()


def test_no_arguments_environment_or_memory(make_agent, keeper) -> None:
    agent = make_agent()
    agent.run()

    def seen(_status: dict):
        for path in (agent.spool_dir / "batches").glob("*.defs"):
            for module in decode(path.read_bytes(), Definitions).modules:
                if module.name == "keeper" and module.kind == ModuleKind.NATIVE:
                    return module
        return None

    module = agent.wait_for(seen, "samples of the program")
    assert SECRET.encode() in Path(f"/proc/{keeper.pid}/cmdline").read_bytes()
    assert SECRET.encode() in Path(f"/proc/{keeper.pid}/environ").read_bytes()
    (agent.spool_dir / "directives").mkdir(exist_ok=True)
    agent.spool().put_directive(symbols(module.kind, module.id))
    for path in (agent.spool_dir / "directives").iterdir():
        path.chmod(0o644)
    extracts = agent.spool_dir / "extracts"
    agent.wait_for(lambda _status: list(extracts.glob("*.extract")), "an extract")
    agent.stop()

    kinds = {".batch": Batch, ".defs": Definitions, ".extract": SymbolExtract}
    texts = {}
    for path in agent.spool_dir.rglob("*"):
        if path.suffix in kinds:
            message = decode(path.read_bytes(), kinds[path.suffix])
            texts.setdefault(path.suffix, []).append(repr(message))
        elif path.is_file():
            texts.setdefault("other", []).append(repr(path.read_bytes()))
    assert set(texts) >= {".batch", ".defs", ".extract"}
    assert any("keeper" in text for text in texts[".batch"])
    # The names of functions and variables are what an extract is for.
    assert any("variable" in text for text in texts[".extract"])
    for kind, found in texts.items():
        for text in found:
            assert SECRET not in text, kind
            assert "PASSWORD" not in text, kind
