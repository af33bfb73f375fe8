"""Compiles the BPF programs when a wheel is built, so that none can be built without them."""

import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class BpfObjects(BuildHookInterface):
    """Runs bpf/build.sh where an object is missing or older than its sources.

    An editable installation gets its objects from `make bpf`: it must not need clang.
    """

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        root = Path(self.root)
        sources = list((root / "bpf").glob("*.bpf.c"))
        objects = [
            root / "node_agent/kernel/objects" / source.with_suffix(".o").name for source in sources
        ]
        inputs = [*sources, *(root / "bpf").glob("*.h"), root / "bpf/build.sh"]
        newest = max(path.stat().st_mtime for path in inputs)
        if all(path.exists() and path.stat().st_mtime >= newest for path in objects):
            return
        build = str(root / "bpf/build.sh")
        done = subprocess.run([build], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(
                f"the BPF programs do not compile; Debian's clang, llvm and libbpf-dev are needed:"
                f"\n{done.stdout}{done.stderr}"
            )
