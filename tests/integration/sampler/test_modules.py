"""What the running sampler has imported, which is the larger part of its memory."""

import signal
import subprocess
import sys
import time
from pathlib import Path

# Each costs 0.1 MB and more, or brings what does.
HEAVY = {
    *("argparse", "ast", "asyncio", "bz2", "concurrent.futures", "dis", "email", "gettext"),
    *("hashlib", "http", "importlib.metadata", "inspect", "ipaddress", "locale", "logging"),
    *("lzma", "msgspec.inspect", "multiprocessing", "random", "shutil", "socket", "ssl"),
    *("subprocess", "tempfile", "threading", "tokenize", "typing_extensions", "unittest"),
    # Work of the children, of another command, or of the other process.
    *("node_agent.unwind.elf_rows", "node_agent.unwind.cfi", "node_agent.unwind.cfi_programs"),
    *("node_agent.unwind.gaps", "node_agent.unwind.stack_heights", "node_agent.arguments"),
    *("node_agent.preflight", "node_agent.record", "node_agent.shipper", "aggregator"),
}

if sys.version_info >= (3, 12):  # where `dataclasses` uses them for every class
    HEAVY -= {"ast", "dis", "inspect", "tokenize"}


def test_a_sampler_that_has_written_batches_has_imported_nothing_heavy(
    tmp_path: Path, telling_imports: list[str]
) -> None:
    flags = ["run", "--spool-dir", str(tmp_path), "--interval", "1", "--preset", "debug"]
    sampler = subprocess.Popen([*telling_imports, *flags], stdout=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 600
        while len(list((tmp_path / "batches").glob("*.batch"))) < 3:
            assert sampler.poll() is None, "it ended"
            assert time.monotonic() < deadline, "no three batches within ten minutes"
            time.sleep(0.1)
        sampler.send_signal(signal.SIGTERM)
        imported, _ = sampler.communicate(timeout=600)
    finally:
        sampler.kill()
        sampler.wait()
    modules = set(imported.split())
    assert {"node_agent.sampler.intake", "msgspec", "ctypes"} <= modules
    assert modules & HEAVY == set()
