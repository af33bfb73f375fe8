"""A real `celery worker -B` on a real Postgres and Valkey does all of its jobs."""

import hmac
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu import Connection

from aggregator.alerts.errors import SecretError
from aggregator.broker import screen_broker
from aggregator.celery_app import JOBS, create_celery
from aggregator.config import CentreConfig, Webhook
from aggregator.health import redis_url
from aggregator.local.account import server_account
from aggregator.local.process import Process
from aggregator.local.valkey import create_valkey
from wire.codec import encode
from wire.schema import SymbolExtract

KEY = b"an alert key of the tests"
SECRET = "whsec_" + b64encode(KEY).decode()
DEADLINE_S = 300
MIB = 1 << 20


def wait_for(what: str, check: Callable[[], bool], log: Path) -> None:
    """Return once `check` is true; fail after DEADLINE_S with the worker's log."""
    limit = time.monotonic() + DEADLINE_S
    while not check():
        assert time.monotonic() < limit, f"{what} did not happen; log:\n{log.read_text()[-4000:]}"
        time.sleep(0.1)


@pytest.fixture
def hook() -> Iterator[Any]:
    """A receiver of webhooks, which answers 500 once and then 200."""
    requests: list[tuple[dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            requests.append(({n.lower(): v for n, v in self.headers.items()}, body))
            self.send_response(500 if len(requests) == 1 else 200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.requests = requests  # type: ignore[attr-defined]  # set on the server
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@contextmanager
def running_worker(
    postgres_url: str, broker_url: str, folder: Path, config: str = ""
) -> Iterator[Path]:
    """A worker with beat, as an operator starts it; yields its log. Must stop by SIGTERM."""
    settings, log, schedule = folder / "centre.toml", folder / "worker.log", folder / "beat"
    settings.write_text(config)
    environment = {
        **os.environ,
        "FLAMEFLEET_CONFIG": str(settings),
        "FLAMEFLEET_DATABASE_URL": postgres_url,
        "FLAMEFLEET_BROKER_URL": broker_url,
    }
    argv = [sys.executable, "-m", "celery", "-A", "aggregator.celery_app", "worker", "--beat"]
    argv += ["--schedule", str(schedule), "--concurrency", "2", "--loglevel", "INFO"]
    with log.open("wb") as output:
        worker = subprocess.Popen(
            argv, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield log
        worker.send_signal(signal.SIGTERM)
        # A pool's process that has just finished a job may wait 30 s for it to be noted (billiard).
        assert worker.wait(300) == 0, log.read_text()[-4000:]
    finally:
        if worker.poll() is None:
            worker.kill()
            worker.wait()
    assert [path.name for path in folder.glob("beat*")], "beat keeps its times where it was told"


def report_overhead(rows: Any, cpu_percent: float) -> None:
    rows("DELETE FROM node_overhead")
    rows(
        "INSERT INTO node_overhead (node_id, at, cpu_percent, user_percent_of_core, memory_bytes,"
        " map_bytes, duration_s, detail) SELECT id, now() - s * interval '10 seconds',"
        " :cpu, :cpu, :memory, 0, 10, '{}' FROM nodes, generate_series(1, 4) AS s",
        cpu=cpu_percent,
        memory=30 * MIB,
    )


def test_the_worker_alerts_symbolizes_compacts_and_makes_partitions(
    postgres_url, valkey_server, valkey_url, rows, tmp_path, hook
):
    # GIVEN a node, symbols nobody has read, and a minute that is marked but empty
    rows("INSERT INTO nodes (name, last_seen_at) VALUES ('web-1', now() + interval '1 hour')")
    rows(
        "INSERT INTO modules (kind, build_id, name, hash64, symbol_state)"
        " VALUES (1, :build_id, 'vmlinux', 1, 'requested')",
        build_id=b"\1" * 20,
    )
    rows('INSERT INTO frames (module_id, "offset") SELECT id, 18 FROM modules')
    extract = SymbolExtract("web-1", 1, b"\1" * 20, "vmlinux", b"0 _stext\n10 schedule\n")
    rows(
        "INSERT INTO symbol_files (module_id, format, data)"
        " SELECT id, 'extract', :data FROM modules",
        data=encode(extract),
    )
    rows("INSERT INTO dirty_bucket SELECT 60, '2026-01-01T00:00Z', id FROM nodes")
    url = f"http://127.0.0.1:{hook.server_port}/"
    config = f'[[webhooks]]\nurl = "{url}"\nsecret = "{SECRET}"\nallow_private = true\n'
    ask = create_celery(CentreConfig(postgres_url, valkey_url)).send_task
    partitions = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'node_overhead'::regclass"

    with running_worker(postgres_url, valkey_url, tmp_path, config) as log:
        # WHEN the worker runs THEN it does what waits, without being asked
        wait_for("partitions", lambda: rows(partitions)[0][0] >= 3, log)
        wait_for(
            "symbolizing",
            lambda: rows("SELECT function FROM frames") == [("schedule",)],
            log,
        )
        wait_for("compaction", lambda: rows("SELECT 1 FROM dirty_bucket") == [], log)

        # WHEN overhead goes over the limit THEN one webhook leaves, again after a failure
        report_overhead(rows, 3.0)
        ask("alerts.evaluate")
        wait_for("the start", lambda: len(hook.requests) == 1, log)
        wait_for(
            "the note of the failure",
            lambda: rows("SELECT last_error IS NOT NULL FROM deliveries") == [(True,)],
            log,
        )
        rows("UPDATE deliveries SET next_attempt_at = now()")
        ask("alerts.deliver")
        delivered = "SELECT count(*) FROM deliveries WHERE delivered_at IS NOT NULL"
        wait_for("the second attempt", lambda: rows(delivered) == [(1,)], log)

        # WHEN it recovers THEN one webhook leaves, by beat alone; repeated messages change nothing
        report_overhead(rows, 0.1)
        wait_for("the end", lambda: rows(delivered) == [(2,)], log)
        for _ in range(3):
            ask("alerts.evaluate")
            ask("alerts.deliver")
        waiting = (b"LLEN flamefleet\r\n", b"LLEN flamefleet.deliveries\r\n")
        wait_for("an empty queue", lambda: {*map(valkey_server.ask, waiting)} == {b":0\r\n"}, log)

    statuses = [json.loads(body)["status"] for _, body in hook.requests]
    assert statuses == ["firing", "firing", "resolved"]
    ids = [headers["webhook-id"] for headers, _ in hook.requests]
    assert ids[0] == ids[1] != ids[2]
    for headers, body in hook.requests:
        content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        signature = headers["webhook-signature"].removeprefix("v1,")
        assert b64decode(signature) == hmac.digest(KEY, content, "sha256")
    assert rows("SELECT state FROM alerts") == [("resolved",)]
    assert "Traceback" not in log.read_text(), log.read_text()[-4000:]


def test_the_worker_comes_back_after_broker_and_database_were_away(
    servers_dir, postgres_server, postgres_url, rows, database, tmp_path
):
    valkey = create_valkey(servers_dir / "away", server_account())
    mark = "INSERT INTO dirty_bucket SELECT 60, '2026-01-01T00:00Z', id FROM nodes"
    done = "SELECT 1 FROM dirty_bucket"
    rows("INSERT INTO nodes (name) VALUES ('web-1')")
    name = postgres_url.rpartition("/")[2].partition("?")[0]
    with (tmp_path / "valkey.log").open("wb") as output:
        broker = Process(valkey.command(), output)
        try:
            valkey.wait_ready(broker, DEADLINE_S)
            with running_worker(postgres_url, valkey.url(), tmp_path) as log:
                rows(mark)
                wait_for("the first compaction", lambda: rows(done) == [], log)
                # WHEN the broker forgets everything and the database ends all connections
                assert broker.stop(DEADLINE_S)
                rows(mark)
                database.dispose()
                with postgres_server.connect() as connection:
                    connection.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                        [name],
                    )
                broker = Process(valkey.command(), output)
                valkey.wait_ready(broker, DEADLINE_S)
                # THEN the work is done all the same
                wait_for("the compaction after it", lambda: rows(done) == [], log)
        finally:
            assert broker.stop(DEADLINE_S)


def test_the_worker_outlives_a_broker_that_goes_away_while_a_job_is_under_way(
    servers_dir, postgres_server, postgres_url, rows, tmp_path
):
    valkey = create_valkey(servers_dir / "gone", server_account())
    name = postgres_url.rpartition("/")[2].partition("?")[0]
    held = "SELECT 1 FROM pg_stat_activity WHERE datname = :name AND wait_event_type = 'Lock'"
    done = "SELECT 1 FROM dirty_bucket"
    rows("INSERT INTO nodes (name) VALUES ('web-1')")
    with (tmp_path / "valkey.log").open("wb") as output:
        broker = Process(valkey.command(), output)
        try:
            valkey.wait_ready(broker, DEADLINE_S)
            with running_worker(postgres_url, valkey.url(), tmp_path) as log:
                with postgres_server.connect(name) as holder, holder.transaction():
                    holder.execute("LOCK TABLE dirty_bucket IN ACCESS EXCLUSIVE MODE")
                    holder.execute(
                        "INSERT INTO dirty_bucket SELECT 60, '2026-01-01T00:00Z', id FROM nodes"
                    )
                    wait_for("a job under way", lambda: rows(held, name=name) != [], log)
                    assert broker.stop(DEADLINE_S)
                    lost = "Connection to broker lost"
                    wait_for("the loss of the broker", lambda: lost in log.read_text(), log)
                    broker = Process(valkey.command(), output)
                    valkey.wait_ready(broker, DEADLINE_S)
                    back = "Connected to"
                    wait_for("the return", lambda: log.read_text().count(back) == 2, log)
                # THEN the job ends, which nobody acknowledges any more, and the worker goes on
                wait_for("the compaction", lambda: rows(done) == [], log)
        finally:
            assert broker.stop(DEADLINE_S)


def test_a_receiver_that_hangs_delays_neither_the_other_nor_compaction(
    postgres_url, valkey_url, rows, tmp_path, hook
):
    rows(
        "INSERT INTO nodes (name, last_seen_at) SELECT 'web-' || n, now() + interval '1 hour'"
        " FROM generate_series(1, 12) AS n"
    )
    partitions = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'node_overhead'::regclass"
    hook.requests.append(({}, b"{}"))  # it answers 500 to the first one only
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        config = "".join(
            f'[[webhooks]]\nurl = "http://127.0.0.1:{at}/"\nallow_private = true\n'
            for at in (port, hook.server_port)
        )
        with running_worker(postgres_url, valkey_url, tmp_path, config) as log:
            wait_for("partitions", lambda: rows(partitions)[0][0] >= 3, log)
            report_overhead(rows, 3.0)
            hung, _ = silent.accept()  # WHEN the first message hangs
            rows("INSERT INTO dirty_bucket SELECT 60, '2026-01-01T00:00Z', min(id) FROM nodes")
            wait_for("compaction", lambda: rows("SELECT 1 FROM dirty_bucket") == [], log)
            wait_for("all for the other", lambda: len(hook.requests) == 13, log)
            # THEN few of the twelve were tried there: each takes 15 s, and ever longer rests follow
            tried = "SELECT sum(attempts)::int FROM deliveries WHERE url LIKE :url"
            [(attempts,)] = rows(tried, url=f"%:{port}/")
            assert 1 <= attempts < 6
            hung.close()
    assert "Traceback" not in log.read_text(), log.read_text()[-4000:]


def deliveries_beside(folder: Path) -> list[int]:
    """Process ids of the workers of deliveries beside the worker whose files are in `folder`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            argv = entry.read_text().split("\0")
            if "aggregator.jobs.deliveries" in argv:
                parent = Path("/proc", argv[argv.index("aggregator.jobs.deliveries") + 1])
                if str(folder / "beat") in (parent / "cmdline").read_text().split("\0"):
                    found.append(int(entry.parent.name))
    return found


def test_the_worker_of_deliveries_is_started_again_and_ends_with_its_worker(
    postgres_url, valkey_url, tmp_path
):
    with running_worker(postgres_url, valkey_url, tmp_path) as log:
        wait_for("both workers", lambda: log.read_text().count(" ready.") == 2, log)
        [first] = deliveries_beside(tmp_path)
        os.kill(first, signal.SIGKILL)
        wait_for("another", lambda: log.read_text().count(" ready.") == 3, log)
        [second] = deliveries_beside(tmp_path)
        assert second != first
        assert "the worker of deliveries was killed by SIGKILL" in log.read_text()
        assert "postgresql" not in Path(f"/proc/{second}/cmdline").read_text()
    assert not Path(f"/proc/{second}").exists()


def garbage(job: str) -> dict[str, bytes]:
    """Contents of a queue that are no message of ours, by the reason they are dropped for."""
    body = b64encode(b"[[], {}, {}]").decode()
    properties = {"body_encoding": "base64", "delivery_tag": "1", "delivery_info": {}}
    message = {
        "body": body,
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"task": job, "id": "1"},
        "properties": properties,
    }

    def changed(**changes: Any) -> bytes:
        return json.dumps(
            {**message, **{k.replace("_", "-"): v for k, v in changes.items()}}
        ).encode()

    return {
        "not_json": b"\xff\x00 this is no JSON",
        "not_a_message": b"[1, 2]",
        "headers": changed(headers=None),
        "properties": changed(properties="none"),
        "content_type": changed(content_type="application/x-python-serialize"),
        "content_encoding": changed(content_encoding="utf-99"),
        "body": changed(body="*** not base64 ***"),
        "unknown_job": changed(headers={"task": "os.system", "id": "1"}),
        "expires": changed(headers={"task": job, "id": "1", "expires": "soon"}),
        "too_large": b"[" * 100_000,
    }


def test_foreign_content_of_the_broker_is_dropped_counted_and_said_and_jobs_are_done(
    servers_dir, postgres_url, rows, tmp_path
):
    valkey = create_valkey(servers_dir / "garbage", server_account())
    rows("INSERT INTO nodes (name) VALUES ('web-1')")
    mark = "INSERT INTO dirty_bucket SELECT 60, '2026-01-01T00:00Z', id FROM nodes"
    done = "SELECT 1 FROM dirty_bucket"
    items = garbage("profiles.compact")
    client = redis.Redis.from_url(redis_url(valkey.url()))
    with (tmp_path / "valkey.log").open("wb") as output:
        broker = Process(valkey.command(), output)
        try:
            valkey.wait_ready(broker, DEADLINE_S)
            # GIVEN a broker in which every key of Celery's is of a wrong type before the start
            for key in ("flamefleet", "flamefleet.deliveries", "_kombu.binding.flamefleet"):
                client.set(key, "garbage")
            client.sadd("unacked", "garbage")
            client.set("unacked_index", "garbage")
            with running_worker(postgres_url, valkey.url(), tmp_path) as log:
                wait_for("both workers", lambda: log.read_text().count(" ready.") == 2, log)
                rows(mark)
                wait_for("a job in spite of wrong types", lambda: rows(done) == [], log)

                # WHEN garbage of each kind comes THEN the same worker goes on
                for item in items.values():
                    client.lpush("flamefleet", item)
                    client.lpush("flamefleet.deliveries", item)
                rows(mark)
                wait_for("a job after the garbage", lambda: rows(done) == [], log)
                client.delete("flamefleet")
                client.set("flamefleet", "garbage")
                rows(mark)
                wait_for("a job after a wrong type", lambda: rows(done) == [], log)

                # THEN it was counted, by reason
                dropped = "SELECT reason, messages FROM dropped_messages"
                wait_for("the count", lambda: dict(rows(dropped)).keys() >= items.keys(), log)
                wait_for("wrong types", lambda: dict(rows(dropped)).get("wrong_type", 0) >= 2, log)
        finally:
            assert broker.stop(DEADLINE_S)
    said = log.read_text()
    assert "Traceback" not in said, said[-4000:]
    assert said.count("the broker's queue flamefleet held what is no message of ours") >= len(items)
    assert said.count(" ready.") == 2, "each worker was ready once: none was started again"


def test_a_channel_of_a_closed_connection_is_no_fault_of_celery(valkey_url):
    screen_broker([])
    connection = Connection(valkey_url)
    channel = connection.channel()
    lost = connection.connection_errors  # what Celery's worker outlives
    connection.release()

    with (
        pytest.raises(lost, match="the connection to the broker is closed"),
        channel.conn_or_acquire(),
    ):
        pass


def test_every_job_is_scheduled_and_follow_ups_exist():
    celery = create_celery(CentreConfig("postgresql:///x", "redis://localhost"))
    assert {entry["task"] for entry in celery.conf.beat_schedule.values()} == {
        job.name for job in JOBS
    }
    assert {job.name for job in JOBS} <= set(celery.tasks)
    assert {job.then for job in JOBS} - {None} <= {job.name for job in JOBS}


def test_an_unreadable_secret_is_told_at_the_start():
    webhook = Webhook("https://example.com", "whsec_***")
    with pytest.raises(SecretError, match="not base64"):
        create_celery(CentreConfig("postgresql:///x", "redis://localhost", webhooks=(webhook,)))
