"""/healthz, /readyz and /metrics with real servers, and with servers that are gone."""

import pytest
from aiohttp.test_utils import TestClient, TestServer

from aggregator.app import create_app
from aggregator.config import CentreConfig
from aggregator.health import redis_url

NOWHERE = "postgresql://nobody@/nothing?host=/nonexistent"
NO_BROKER = "redis+socket:///nonexistent/valkey.sock"


async def answers(config, path):
    async with TestClient(TestServer(create_app(config))) as client, client.get(path) as response:
        return response.status, await response.json()


async def test_ready_with_everything_there(centre_config):
    assert await answers(centre_config, "/readyz") == (
        200,
        {
            "ready": True,
            "checks": {
                "database": {"ok": True},
                "migrations": {"ok": True},
                "broker": {"ok": True},
            },
        },
    )


@pytest.mark.parametrize("missing", ["database", "broker"])
async def test_what_is_missing_is_named(centre_config, missing):
    config = CentreConfig(
        database_url=NOWHERE if missing == "database" else centre_config.database_url,
        broker_url=NO_BROKER if missing == "broker" else centre_config.broker_url,
    )

    status, body = await answers(config, "/readyz")

    assert (status, body["ready"]) == (503, False)
    assert missing in {name for name, check in body["checks"].items() if not check["ok"]}
    assert "cannot" in body["checks"][missing]["problem"]
    assert body["checks"]["broker" if missing == "database" else "database"] == {"ok": True}


async def test_database_without_migrations_is_not_ready(empty_postgres_url, valkey_url):
    status, body = await answers(CentreConfig(empty_postgres_url, valkey_url), "/readyz")

    assert status == 503
    assert body["checks"]["database"] == {"ok": True}
    assert "flamefleet db upgrade" in body["checks"]["migrations"]["problem"]


async def test_alive_without_anything():
    assert await answers(CentreConfig(NOWHERE, NO_BROKER), "/healthz") == (200, {"alive": True})


async def test_batch_without_a_database_is_a_503_to_be_sent_again(node, centre_config, stack_of):
    config = CentreConfig(NOWHERE, centre_config.broker_url)
    batch = node.batch({stack_of(1): 1})
    async with TestClient(TestServer(create_app(config))) as client:
        node.client = client
        async with await node.post("/api/v1/batches", batch) as response:
            assert (response.status, response.headers["Retry-After"]) == (503, "5")
            assert (await response.json())["error"]["code"] == "database_unavailable"


async def test_metrics_are_prometheus_text(client):
    async with client.get("/metrics") as response:
        assert response.status == 200
        assert response.content_type == "text/plain"
        body = await response.text()
    for name in ("batches_total", "refused_total", "decode_seconds_bucket", "queued_batches"):
        assert f"flamefleet_{name}" in body


@pytest.mark.parametrize(
    ("broker", "redis"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis+socket:///run/v.sock", "unix:///run/v.sock"),
        ("redis+socket:///run/v.sock?virtual_host=2", "unix:///run/v.sock?db=2"),
    ],
)
def test_broker_urls(broker, redis):
    assert redis_url(broker) == redis


async def test_a_defect_is_a_500_in_json_and_nothing_more(centre_config, caplog):
    async def fail(request):
        raise ZeroDivisionError("secret details")

    app = create_app(centre_config)
    app.router.add_get("/defect", fail)
    async with TestClient(TestServer(app)) as client:
        async with client.get("/defect") as response:
            assert response.status == 500
            body = await response.text()
        async with client.get("/metrics") as response:
            assert 'flamefleet_refused_total{reason="internal"} 1.0' in await response.text()
    assert '"code": "internal"' in body
    assert "secret details" not in body
    assert "secret details" in caplog.text
