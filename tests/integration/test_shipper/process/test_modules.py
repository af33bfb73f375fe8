"""What the running shipper has imported, which is the larger part of its memory."""

import signal
import subprocess

# Each costs 0.1 MB and more, or brings what does.
HEAVY = {
    *("argparse", "ast", "asyncio", "bz2", "concurrent.futures", "ctypes", "dataclasses"),
    *("dis", "gettext"),
    *("hashlib", "importlib.metadata", "inspect", "ipaddress", "logging", "lzma"),
    *("msgspec.inspect", "multiprocessing", "shutil", "ssl", "subprocess", "tempfile"),
    *("threading", "tokenize", "typing_extensions", "unittest"),
    *("node_agent.arguments", "node_agent.collectors", "node_agent.kernel", "node_agent.sampler"),
    *("node_agent.symbols", "node_agent.unwind", "aggregator"),
}


def test_a_shipper_that_has_delivered_has_imported_nothing_heavy(
    peer, sampler, token_file, wait_until, telling_imports
) -> None:
    sampler.put()
    flags = ["--url", peer.url, "--token-file", str(token_file)]
    flags += ["--spool-dir", str(sampler.spool.root)]
    shipper = subprocess.Popen(
        [*telling_imports, "ship", *flags], stdout=subprocess.PIPE, text=True
    )
    try:
        wait_until(lambda: not sampler.spool.pending())
        shipper.send_signal(signal.SIGTERM)
        imported, _ = shipper.communicate(timeout=600)
    finally:
        shipper.kill()
        shipper.wait()
    modules = set(imported.split())
    assert {"node_agent.shipper.client", "msgspec"} <= modules
    assert modules & HEAVY == set()
