"""The process with the network has been taken over: what it can do to the sampler is little."""

from pathlib import Path

from wire.codec import decode
from wire.schema import Batch
from wire.validate import check_batch

# Run as the shipper's user, in the spool. Everything that its rights allow.
LITTER = r"""
import os, sys
spool = sys.argv[1]
os.umask(0)
for folder in ("batches", "extracts", "refused", "directives", "status"):
    os.makedirs(f"{spool}/{folder}", exist_ok=True)
    os.chdir(f"{spool}/{folder}")
    os.symlink("/etc/shadow", "link.batch")
    os.symlink("/", "0" * 32 + "-000000000001.batch")
    os.mkfifo("pipe.json")
    os.mkfifo("0" * 40 + "-0.extract")
    os.mkdir("folder.json")
    os.makedirs("full.json/inside")
    open("own", "w").write("x")
    os.link("own", "hard.json")
    for number in range(3000):
        open(f"{number:08d}.batch", "w").close()
    for name in (b"..json", b"...", b"a\nb.json", b"\xff\xfe.json", b"\x1b[2J.json", b"n" * 255):
        open(name, "w").write("{}")
    with open("huge.json", "wb") as file:
        file.truncate(1 << 40)
"""
ORDERS = r"""
import json, os, sys
os.umask(0)
os.chdir(sys.argv[1] + "/directives")
known = sys.argv[2]
texts = {
    "deep": "[" * 100_000,
    "deep2": '{"kind":' * 60_000,
    "big": '{"kind": "define", "hashes": [' + '"' + "a" * 2_000_000 + '"]}',
    "path": '{"kind": "symbols", "module_kind": 0, "build_id": "../../../etc/shadow"}',
    "nul": '{"kind": "symbols", "module_kind": 0, "build_id": "ab\\u0000cd"}',
    "number": '{"kind": "symbols", "module_kind": 1e999, "build_id": "ab"}',
    "long": '{"kind": "symbols", "module_kind": 0, "build_id": "' + "ab" * 100 + '"}',
    "shell": '{"kind": "exec", "command": "id"}',
    "none": "",
}
for name, text in texts.items():
    open(f"{name}.json", "w").write(text)
for number in range(600):
    order = {"kind": "symbols", "module_kind": 0, "build_id": f"{number:040x}"}
    open(f"unseen-{number}.json", "w").write(json.dumps(order))
hashes = [f"{number:032x}" for number in range(4096)]
for number in range(50):
    open(f"z-define-{number}.json", "w").write(json.dumps({"kind": "define", "hashes": hashes}))
for number in range(50):
    order = {"kind": "symbols", "module_kind": 0, "build_id": known, "path": "/etc/shadow"}
    open(f"known-{number}.json", "w").write(json.dumps(order))
"""
REPORTS = [
    '{"at": 4e9, "usage": ' * 50_000,
    '{"at": 4e9, "usage": {"pid": 1, "cpu_ns": 1e300, "memory_bytes": 1e300}}',
    '{"at": 4e9, "usage": {"pid": 1e999, "cpu_ns": 1e999, "memory_bytes": 1e999}}',
    '{"at": 4e9, "usage": {"pid": -1, "cpu_ns": -5, "memory_bytes": -5}}',
    '{"at": 4e9, "usage": {"pid": 99999999999999999999999999, "cpu_ns": 0, "memory_bytes": 0}}',
    '{"at": 1e999, "usage": [], "alerts": 5, "sent": [], "last_error": 7}',
    '{"state": "\\u001b[2J", "dropped": {"\\u001b": 1}}',
    "[" * 200_000,
    "\x00",
]
REPORT = r"""
import os, shutil, sys
os.chdir(sys.argv[1] + "/status")
shutil.copy(sys.argv[2], "new")
os.chmod("new", 0o644)
os.rename("new", "shipper.json")
"""
TRESPASS = r"""
import os, sys
pid, python, shared = int(sys.argv[1]), sys.argv[2], sys.argv[3]
def tried(what, action):
    try:
        action()
    except OSError as error:
        print(what, "denied")
    else:
        print(what, "DONE")
tried("signal", lambda: os.kill(pid, 9))
tried("memory", lambda: open(f"/proc/{pid}/mem", "rb").read(1))
tried("descriptors", lambda: os.listdir(f"/proc/{pid}/fd"))
tried("environment", lambda: open(f"/proc/{pid}/environ").read())
tried("interpreter", lambda: os.execv(python, [python, "-c", ""]))
tried("beside the spool", lambda: open(shared + "/x", "w"))
"""


def high_water_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def newer_than(sequence: int):
    return lambda status: status.get("sequence", 0) > sequence and status


def test_litter_in_every_folder_of_the_spool(make_agent, closed_program) -> None:
    agent = make_agent()
    agent.as_shipper(LITTER, str(agent.spool_dir))

    process = agent.run()
    status = agent.wait_for(newer_than(3), "batches among the litter")

    # Unknown files count in the spool's bytes, so the huge one went, and what is no file went.
    assert status["dropped"]["foreign_file"] > 0
    assert status["dropped"]["directive_malformed"] > 0
    batches = [
        path
        for path in (agent.spool_dir / "batches").iterdir()
        if path.name.startswith(status["run"]) and path.suffix == ".batch"
    ]
    assert len(batches) >= 3
    for path in batches:
        check_batch(decode(path.read_bytes(), Batch))
    assert high_water_bytes(process.pid) < 120 << 20
    shown = agent.ask("status", "--spool-dir", str(agent.spool_dir))
    assert shown.returncode == 0, shown.stderr
    assert "Traceback" not in agent.stop()
    assert not Path("/etc/shadow").samefile(batches[0])


def test_orders_beyond_what_an_order_can_be(make_agent, closed_program) -> None:
    from wire.schema import Definitions

    agent = make_agent()
    process = agent.run()

    def build_id(_status: dict) -> str | None:
        for path in (agent.spool_dir / "batches").glob("*.defs"):
            for module in decode(path.read_bytes(), Definitions).modules:
                if module.name == "guarded":
                    return module.id.hex()
        return None

    known = agent.wait_for(build_id, "a sample of the program")
    agent.as_shipper(ORDERS, str(agent.spool_dir), known)

    # 256 orders are read every two seconds.
    status = agent.wait_for(
        lambda status: (
            status["extracts"].get("unknown", 0) == 600
            and not list((agent.spool_dir / "directives").iterdir())
            and status
        ),
        "the end of the orders",
    )
    status = agent.wait_for(newer_than(status["sequence"] + 1), "batches afterwards")

    assert status["dropped"]["directive_malformed"] >= 8
    # Fifty orders for the same program, while it waits or is being made, are one.
    extracts = list((agent.spool_dir / "extracts").iterdir())
    assert {path.name for path in extracts if not path.name.startswith(".")} <= {
        f"{known}-0.extract"
    }
    assert high_water_bytes(process.pid) < 150 << 20
    assert "Traceback" not in agent.stop()


def test_reports_that_lie(make_agent) -> None:
    agent = make_agent()
    agent.run(interval_s=0.5)
    sequence = agent.wait_for(newer_than(0), "a batch")["sequence"]
    for report in REPORTS:
        (agent.folder / "report").write_text(report)
        (agent.folder / "report").chmod(0o644)
        agent.as_shipper(REPORT, str(agent.spool_dir), str(agent.folder / "report"))
        sequence = agent.wait_for(newer_than(sequence + 1), "batches afterwards")["sequence"]
        shown = agent.ask("status", "--spool-dir", str(agent.spool_dir))
        assert shown.returncode == 0, shown.stderr
        assert "Traceback" not in shown.stderr
        assert "\x1b" not in shown.stdout
    assert "Traceback" not in agent.stop()


def test_the_sampler_itself_is_out_of_reach(make_agent, closed_program) -> None:
    agent = make_agent()
    process = agent.run()
    agent.wait_for(newer_than(0), "a batch")

    told = agent.as_shipper(
        TRESPASS, str(process.pid), str(agent.folder / "python"), str(agent.folder)
    )

    assert "DONE" not in told
    assert told.count("denied") == 6
    assert process.poll() is None


def test_folders_that_became_links_are_refused_in_words(make_agent) -> None:
    agent = make_agent()
    agent.spool()
    agent.as_shipper(
        "import os, sys\n"
        "os.chdir(sys.argv[1])\n"
        "os.rename('batches', 'gone')\n"
        "os.symlink('/etc', 'batches')\n",
        str(agent.spool_dir),
    )
    before = Path("/etc").stat().st_mode

    ran = agent.ask("run", "--spool-dir", str(agent.spool_dir))

    assert ran.returncode == 1
    assert "batches" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert Path("/etc").stat().st_mode == before


def test_a_report_of_the_sampler_that_became_a_link_is_replaced(make_agent) -> None:
    agent = make_agent()
    target = agent.folder / "target"
    target.write_text("untouched")
    agent.run(interval_s=0.5)
    agent.wait_for(newer_than(0), "a batch")
    agent.as_shipper(
        "import os, sys\n"
        "os.chdir(sys.argv[1] + '/status')\n"
        "os.unlink('sampler.json'); os.symlink(sys.argv[2], 'sampler.json')\n",
        str(agent.spool_dir),
        str(target),
    )
    agent.wait_for(newer_than(2), "a report")
    assert not (agent.spool_dir / "status" / "sampler.json").is_symlink()
    assert target.read_text() == "untouched"
